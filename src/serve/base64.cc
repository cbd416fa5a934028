#include "serve/base64.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace pinhole::serve {

namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kNone = 255, kSkip = 254;

constexpr std::array<uint8_t, 256> make_table() {
  std::array<uint8_t, 256> table{};
  for (uint8_t& value : table)
    value = kNone;
  for (size_t i = 0; i < kAlphabet.size(); ++i)
    table[static_cast<unsigned char>(kAlphabet[i])] = static_cast<uint8_t>(i);
  table['-'] = 62;
  table['_'] = 63;
  table['\r'] = table['\n'] = kSkip;
  return table;
}
constexpr auto kTable = make_table();

} // namespace

std::optional<std::string> decode_base64(std::string_view text) {
  std::string out;
  out.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  size_t num_chars = 0, num_pads = 0;
  for (const char c : text) {
    if (c == '=') {
      ++num_pads;
      continue;
    }
    const uint8_t value = kTable[static_cast<unsigned char>(c)];
    if (value == kSkip)
      continue;
    if (value == kNone || num_pads > 0)
      return std::nullopt;
    bits = bits << 6 | value;
    if (++num_chars % 4 == 0) {
      out += static_cast<char>(bits >> 16);
      out += static_cast<char>(bits >> 8);
      out += static_cast<char>(bits);
    }
  }
  const size_t rest = num_chars % 4;
  const bool is_padded = num_pads == 0 || (rest + num_pads == 4 && rest >= 2);
  if (rest == 1 || !is_padded)
    return std::nullopt;
  if (rest >= 2)
    out += static_cast<char>(rest == 2 ? bits >> 4 : bits >> 10);
  if (rest == 3)
    out += static_cast<char>(bits >> 2);
  return out;
}

std::string encode_base64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k)
      out += k <= n ? kAlphabet[bits >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

} // namespace pinhole::serve
