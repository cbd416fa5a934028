#include "text/utf8.h"

#include <algorithm>
#include <cstring>

namespace pinhole {

namespace {

// What may follow a lead byte: the length of the sequence and the range of its second byte.
struct Lead {
  size_t length; // 0: not a lead byte
  uint8_t second_min, second_max;
};

Lead lead_of(uint8_t byte) {
  if (byte < 0x80)
    return {1, 0, 0};
  if (byte < 0xC2)
    return {0, 0, 0};
  if (byte < 0xE0)
    return {2, 0x80, 0xBF};
  if (byte == 0xE0)
    return {3, 0xA0, 0xBF};
  if (byte == 0xED)
    return {3, 0x80, 0x9F}; // above would be a surrogate
  if (byte < 0xF0)
    return {3, 0x80, 0xBF};
  if (byte == 0xF0)
    return {4, 0x90, 0xBF};
  if (byte < 0xF4)
    return {4, 0x80, 0xBF};
  if (byte == 0xF4)
    return {4, 0x80, 0x8F}; // above would pass U+10FFFF
  return {0, 0, 0};
}

struct Part {
  size_t bytes;  // of the sequence, or of the longest prefix of one (at least 1)
  bool complete; // a whole character
  bool cut;      // a proper prefix of a character that ends with the text
};

Part part_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const Lead lead = lead_of(byte(at));
  if (lead.length == 0)
    return {1, false, false};
  const size_t available = text.size() - at;
  size_t i = 1;
  for (; i < lead.length && i < available; ++i) {
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xBF;
    if (byte(at + i) < low || byte(at + i) > high)
      return {i, false, false};
  }
  return {i, i == lead.length, i < lead.length};
}

} // namespace

size_t utf8_sequence(std::string_view text, size_t at) {
  const Part part = part_at(text, at);
  return part.complete ? part.bytes : 0;
}

size_t utf8_valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t word;
    while (text.size() - at >= sizeof word) { // ASCII, eight at a time
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & 0x8080808080808080u) != 0)
        break;
      at += sizeof word;
    }
    if (at == text.size())
      break;
    const Part part = part_at(text, at);
    if (!part.complete)
      break;
    at += part.bytes;
  }
  return at;
}

uint32_t utf8_decode(std::string_view text, size_t at, size_t length) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i])); };
  if (length == 1)
    return byte(at);
  uint32_t code_point = byte(at) & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i)
    code_point = code_point << 6 | (byte(at + i) & 0x3F);
  return code_point;
}

void utf8_append(std::string& out, uint32_t code_point) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

size_t utf8_incomplete_suffix(std::string_view text) {
  for (size_t bytes = 1; bytes <= std::min<size_t>(3, text.size()); ++bytes) {
    const size_t at = text.size() - bytes;
    if ((static_cast<uint8_t>(text[at]) & 0xC0) == 0x80)
      continue; // not a lead byte: look further
    return part_at(text, at).cut ? bytes : 0;
  }
  return 0;
}

void utf8_append_lossy(std::string& out, std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t valid = utf8_valid_prefix(text.substr(at));
    out.append(text, at, valid);
    at += valid;
    if (at == text.size())
      break;
    out += "\xEF\xBF\xBD";
    at += part_at(text, at).bytes;
  }
}

} // namespace pinhole
