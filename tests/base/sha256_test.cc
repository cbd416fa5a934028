// SHA-256 against the examples of FIPS 180-2 (appendix B) and the NIST CAVS short messages.
#include "base/sha256.h"

#include <gtest/gtest.h>
#include <string>

namespace pinhole {
namespace {

std::string hash(const std::string& text, size_t step = 0) {
  Sha256 sha;
  if (step == 0)
    sha.update(text.data(), text.size());
  for (size_t i = 0; step > 0 && i < text.size(); i += step)
    sha.update(text.data() + i, std::min(step, text.size() - i));
  return to_hex(sha.finish());
}

TEST(Sha256, FipsVectors) {
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, CavsVectors) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("\xd3"), "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1");
  EXPECT_EQ(hash("\x11\xaf"), "5ca7133fa735326081558ac312c620eeca9970d1e70a4b95533d956f072d1f98");
}

TEST(Sha256, PiecesDoNotMatter) {
  const std::string text(300, 'q');
  for (const size_t step : {1, 7, 63, 64, 65, 299})
    EXPECT_EQ(hash(text, step), hash(text)) << step;
}

} // namespace
} // namespace pinhole
