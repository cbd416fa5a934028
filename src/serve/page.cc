#include "serve/page.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr std::string_view kFolder = "/page/";

// Content Security Policy Level 3: nothing but this server's own files and endpoints, pictures that
// the page itself made (blob:), its icon (data:); no frame around it.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const char* content_type(std::string_view name) {
  return name.ends_with(".html")  ? "text/html; charset=utf-8"
         : name.ends_with(".css") ? "text/css; charset=utf-8"
         : name.ends_with(".js")  ? "text/javascript; charset=utf-8"
                                  : "application/octet-stream";
}

HttpReply file_reply(std::string_view name) {
  const auto files = page_files();
  const auto file = std::find_if(files.begin(), files.end(),
                                 [&](const EmbeddedFile& entry) { return entry.name == name; });
  if (file == files.end()) {
    ApiError error;
    error.status = 404;
    error.message = fmt::format("the page has no file '{}'", name.substr(0, 100));
    error.type = "not_found_error";
    return error_reply(error, ApiStyle::kOpenAi);
  }
  HttpReply reply;
  reply.content_type = content_type(name);
  reply.headers = {{"Content-Security-Policy", kPolicy},
                   {"X-Content-Type-Options", "nosniff"},
                   {"Referrer-Policy", "same-origin"},
                   {"Cross-Origin-Opener-Policy", "same-origin"},
                   {"Cache-Control", "no-cache"}}; // another version of the program has others
  reply.body = file->bytes;
  return reply;
}

} // namespace

bool is_page_path(std::string_view path) { return path == "/" || path.starts_with(kFolder); }

HttpReply page(Api&, HttpRequest&) { return file_reply("index.html"); }

HttpReply page_file(Api&, HttpRequest& http) {
  return file_reply(std::string_view(http.path).substr(kFolder.size()));
}

} // namespace pinhole::serve
