// UTF-8 as the tokenizers see it: text is mostly valid, and what is not must survive byte for byte.
//
// Valid means RFC 3629: shortest form, no surrogates, at most U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pinhole {

// Bytes of the valid sequence that begins at text[at]; 0 when none does. `at` < text.size().
size_t utf8_sequence(std::string_view text, size_t at);

// Length of the longest valid prefix.
size_t utf8_valid_prefix(std::string_view text);

// Code point of a sequence that utf8_sequence() accepted with `length` bytes.
uint32_t utf8_decode(std::string_view text, size_t at, size_t length);

void utf8_append(std::string& out, uint32_t code_point);

// How many bytes at the end of `text` begin a character that more bytes could complete (0..3).
size_t utf8_incomplete_suffix(std::string_view text);

// Appends `text`, each maximal invalid part replaced by one U+FFFD (Unicode 15, section 3.9).
void utf8_append_lossy(std::string& out, std::string_view text);

} // namespace pinhole
