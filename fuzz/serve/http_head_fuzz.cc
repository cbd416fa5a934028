// Bytes of a connection: a head with one framing, or a status; chunks end the same way however they
// are cut.

#include "serve/http_head.h"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pinhole::serve;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const size_t end = find_head_end(bytes);
  const auto head = parse_head(bytes.substr(0, end == 0 ? size : end));
  if (head && head->is_chunked && head->has_length)
    std::abort();
  if (!head && (head.error().status < 400 || head.error().status > 599))
    std::abort();
  const std::string_view rest = bytes.substr(end);
  constexpr uint64_t kLimit = 1000;
  std::string in(rest), body;
  ChunkedDecoder whole;
  const auto at_once = whole.push(in, body, kLimit);
  std::string in_bytes, other;
  ChunkedDecoder slow;
  HttpResult<bool> last = false;
  for (size_t i = 0; i < rest.size() && last && !*last; ++i) {
    in_bytes += rest[i];
    last = slow.push(in_bytes, other, kLimit);
  }
  if (body.size() > kLimit || other.size() > kLimit)
    std::abort();
  if (at_once && *at_once && !(last && *last && other == body))
    std::abort();
  return 0;
}
