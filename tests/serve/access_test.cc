#include "serve/access.h"

#include "serve/base64.h"
#include "serve/fetch.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

namespace pinhole::serve {
namespace {

int status_of(const Access& access, const std::string& headers, const std::string& path = "/") {
  const auto head = parse_head("GET " + path + " HTTP/1.1\r\n" + headers + "\r\n");
  EXPECT_TRUE(head);
  const auto why = access.refuse(*head);
  return why ? why->status : 200;
}

// A page whose owner points its name at 127.0.0.1 sends its own name as Host.
TEST(Access, HostsThatANameServerCannotForge) {
  const Access access({});
  for (const char* host : {"localhost", "localhost:8484", "LOCALHOST:1", "127.0.0.1:8484",
                           "[::1]:8484", "[::1]", "192.168.1.7", "app.localhost:3000"})
    EXPECT_EQ(status_of(access, std::string("Host: ") + host + "\r\n"), 200) << host;
  for (const char* host : {"evil.example", "localhost.evil.example:8484", "127.0.0.1.evil.example",
                           "evil.example:127", "[evil]", "xlocalhost"})
    EXPECT_EQ(status_of(access, std::string("Host: ") + host + "\r\n"), 421) << host;
  const Access named({{}, {"models.lan"}, {}});
  EXPECT_EQ(status_of(named, "Host: models.lan:8484\r\n"), 200);
  EXPECT_EQ(status_of(named, "Host: other.lan\r\n"), 421);
}

TEST(Access, OriginsOfWebPages) {
  const Access access({{}, {}, {"https://app.example"}});
  const std::string host = "Host: 127.0.0.1:8484\r\n";
  EXPECT_EQ(status_of(access, host), 200) << "no page";
  EXPECT_EQ(status_of(access, host + "Origin: http://127.0.0.1:8484\r\n"), 200) << "its own page";
  EXPECT_EQ(status_of(access, host + "Origin: https://app.example\r\n"), 200);
  EXPECT_EQ(status_of(access, host + "Origin: https://evil.example\r\n"), 403);
  EXPECT_EQ(status_of(access, host + "Origin: null\r\n"), 403);
  EXPECT_EQ(status_of(access, host + "Origin: http://127.0.0.1:3000\r\n"), 403);
  EXPECT_TRUE(access.cors_headers("https://evil.example").empty());
  EXPECT_EQ(find_header(access.cors_headers("https://app.example"), "access-control-allow-origin"),
            "https://app.example");
}

TEST(Access, Preflight) {
  const Access access({{"secret"}, {}, {"https://app.example"}});
  const auto ask = [&](const std::string& origin) {
    const auto head =
        parse_head("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: " + origin +
                   "\r\nAccess-Control-Request-Method: POST\r\n\r\n");
    return *access.preflight(*head); // without a key: browsers send none
  };
  const HttpReply good = ask("https://app.example");
  EXPECT_EQ(good.status, 204);
  const std::string_view allowed = find_header(good.headers, "Access-Control-Allow-Headers");
  for (const char* name : {"authorization", "content-type", "x-stainless-os", "x-stainless-timeout",
                           "x-stainless-retry-count"})
    EXPECT_NE(allowed.find(name), std::string_view::npos) << name;
  EXPECT_TRUE(ask("https://evil.example").headers.empty());
}

TEST(Access, Keys) {
  const Access access({{"secret", "other"}, {}, {}});
  const std::string host = "Host: localhost\r\n";
  EXPECT_EQ(status_of(access, host), 401);
  EXPECT_EQ(status_of(access, host + "Authorization: Bearer secret\r\n"), 200);
  EXPECT_EQ(status_of(access, host + "authorization: bearer other\r\n"), 200);
  EXPECT_EQ(status_of(access, host + "X-Api-Key: secret\r\n"), 200);
  EXPECT_EQ(status_of(access, host + "Authorization: Bearer secre\r\n"), 401);
  EXPECT_EQ(status_of(access, host + "Authorization: Bearer secret2\r\n"), 401);
  EXPECT_EQ(status_of(access, host + "Authorization: Basic c2VjcmV0\r\n"), 401);
  EXPECT_EQ(status_of(access, host, "/health"), 200) << "for supervisors without a key";
  EXPECT_EQ(status_of(access, host, "/metrics"), 401);
}

// RFC 4648, section 10.
TEST(Base64, TheRfcsVectors) {
  const std::pair<const char*, const char*> kVectors[] = {{"", ""},
                                                          {"f", "Zg=="},
                                                          {"fo", "Zm8="},
                                                          {"foo", "Zm9v"},
                                                          {"foob", "Zm9vYg=="},
                                                          {"fooba", "Zm9vYmE="},
                                                          {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : kVectors) {
    EXPECT_EQ(encode_base64(plain), coded);
    EXPECT_EQ(decode_base64(coded), plain);
  }
  EXPECT_EQ(decode_base64("Zm9vYg"), "foob") << "without padding";
  EXPECT_EQ(decode_base64("Zm9v\r\nYmFy\n"), "foobar");
  EXPECT_EQ(decode_base64("-_-_"), decode_base64("+/+/"));
  for (const char* bad :
       {"Z", "Zm9vY", "Zg=", "Zg===", "Zm9v=", "Z=g=", "Zm 9v", "Zm9v!", "Zg==Zg=="})
    EXPECT_FALSE(decode_base64(bad)) << bad;
}

bool is_global(const char* text) {
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (::inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    return is_global_address(reinterpret_cast<const sockaddr&>(v4));
  }
  EXPECT_EQ(::inet_pton(AF_INET6, text, &v6.sin6_addr), 1) << text;
  v6.sin6_family = AF_INET6;
  return is_global_address(reinterpret_cast<const sockaddr&>(v6));
}

// iana-ipv4-special-registry, iana-ipv6-special-registry.
TEST(Fetch, OnlyGlobalAddresses) {
  for (const char* address :
       {"0.0.0.0",      "10.1.2.3",        "100.64.0.1",       "100.127.255.255", "127.0.0.1",
        "127.255.0.1",  "169.254.169.254", "172.16.0.1",       "172.31.255.255",  "192.0.0.8",
        "192.0.2.1",    "192.168.0.1",     "198.18.0.1",       "198.19.255.255",  "198.51.100.7",
        "203.0.113.9",  "224.0.0.1",       "240.0.0.1",        "255.255.255.255", "::",
        "::1",          "::127.0.0.1",     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "64:ff9b:1::1", "2001::1",         "2001:db8::1",      "2002:7f00:1::",   "2002:c0a8:1::1",
        "3fff::1",      "fc00::1",         "fd12::1",          "fe80::1",         "ff02::1",
        "4000::1"})
    EXPECT_FALSE(is_global(address)) << address;
  for (const char* address :
       {"1.1.1.1", "8.8.8.8", "100.63.0.1", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.1.0.1",
        "198.17.0.1", "198.20.0.1", "223.255.255.1", "::ffff:8.8.8.8", "64:ff9b::808:808",
        "2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "2002:808:808::1"})
    EXPECT_TRUE(is_global(address)) << address;
}

TEST(Fetch, RefusesThisMachine) {
  const std::atomic<bool> gone{false};
  for (const char* url : {"http://127.0.0.1:9/a.png", "http://localhost:9/a.png", "http://[::1]:9/",
                          "http://0x7f000001/a.png", "http://2130706433/"}) {
    const auto bytes = fetch_picture(url, {}, gone);
    ASSERT_FALSE(bytes) << url;
    EXPECT_NE(bytes.error().message.find("private network"), std::string::npos)
        << url << ": " << bytes.error().text();
  }
  for (const char* url :
       {"file:///etc/passwd", "ftp://example.org/a", "http://user:pw@example.org/"})
    EXPECT_FALSE(fetch_picture(url, {}, gone)) << url;
}

} // namespace
} // namespace pinhole::serve
