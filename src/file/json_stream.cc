#include "file/json_stream.h"

#include "file/printable.h"

#include <fmt/format.h>
#include <utility>

namespace pinhole {

namespace {

// The lexer buffers a token, and what stands between a token and the next string or number.
constexpr size_t kMaxStretchBytes = 4u << 20;

// Begin of the first stretch that is longer than the limit, or npos.
size_t find_long_stretch(std::string_view text) {
  size_t begin = 0;
  bool in_string = false;
  bool in_number = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else {
      const bool digit = c == '-' || (c >= '0' && c <= '9');
      if (c == '"')
        in_string = true;
      if (c == '"' || (digit && !in_number))
        begin = i;
      in_number = digit || (in_number && (c == '.' || c == '+' || c == 'e' || c == 'E'));
    }
    if (i - begin > kMaxStretchBytes)
      return begin;
  }
  return std::string_view::npos;
}

} // namespace

Status JsonStream::run(std::string_view text) {
  const size_t stretch = find_long_stretch(text);
  if (stretch != std::string_view::npos) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("a string or a gap of more than {} bytes", kMaxStretchBytes),
                fmt::format("{}, byte 0x{:x}", name_, base_ + stretch));
  }
  status_ = {};
  const bool done = Json::sax_parse(text, this);
  if (!done && status_)
    return fail(ErrorCode::kInvalidInput, "not valid JSON", name_);
  return status_;
}

bool JsonStream::parse_error(size_t position, const std::string& last_token,
                             const nlohmann::detail::exception&) {
  const uint64_t at = base_ + (position > 0 ? position - 1 : 0);
  return stop(
      Error{ErrorCode::kInvalidInput,
            fmt::format("{} is not valid JSON near {}", context(), printable(last_token, 40)),
            fmt::format("{}, byte 0x{:x}", name_, at),
            {}});
}

bool JsonStream::stop(Error error) {
  if (status_)
    status_ = tl::unexpected<Error>(std::move(error));
  return false;
}

} // namespace pinhole
