// Base64 (RFC 4648): strict but for missing padding, line breaks, and the URL alphabet.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pinhole::serve {

// Nothing when `text` is not base64: another character, or a number of them that no bytes give.
std::optional<std::string> decode_base64(std::string_view text);
std::string encode_base64(std::string_view bytes);

} // namespace pinhole::serve
