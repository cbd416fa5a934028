// Text as Python sees it: code points, white space, case, repr of strings and floats.
//
// Strings are UTF-8 bytes. A byte that is not part of a valid sequence counts as one code point of
// its own (0xDC00 + byte, as Python's surrogateescape does) and passes through unchanged. Source:
// Python 3 language reference, library reference "Text Sequence Type".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pinhole::jinja {

struct CodePoint {
  uint32_t value = 0;
  uint32_t size_bytes = 1;
};

// The code point that starts at byte `at` (< text.size()).
CodePoint code_point_at(std::string_view text, size_t at);
// First byte of the code point that ends before byte `end` (> 0).
size_t code_point_before(std::string_view text, size_t end);
int64_t count_code_points(std::string_view text);
// Byte offset of code point `index`; text.size() when there are not as many.
size_t byte_offset(std::string_view text, int64_t index);
void append_code_point(std::string& out, uint32_t value);

bool is_space(uint32_t code_point); // str.isspace, and \s of re
bool is_word(uint32_t code_point);  // \w of re
bool is_name_start(uint32_t code_point);
bool is_line_break(uint32_t code_point); // str.splitlines

enum class Side : uint8_t { kLeft, kRight, kBoth };
// str.strip: white space, or any of the code points in `chars`.
std::string_view strip(std::string_view text, std::optional<std::string_view> chars, Side side);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string to_title(std::string_view text); // str.title
std::string swap_case(std::string_view text);

// str.isalpha and relatives: false for an empty text.
enum class CharClass : uint8_t { kAlpha, kDigit, kDecimal, kNumeric, kAlnum, kSpace, kAscii };
bool all_of_class(std::string_view text, CharClass char_class);
bool is_upper(std::string_view text);
bool is_lower(std::string_view text);
bool is_title(std::string_view text);
bool is_identifier(std::string_view text);

std::string float_repr(double number);                     // repr(float): shortest that reads back
void append_repr(std::string& out, std::string_view text); // repr(str)
std::string repr(std::string_view text);
std::string escape_html(std::string_view text); // markupsafe.escape

// int(text) and float(text) of Python, underscores and white space around included.
std::optional<int64_t> parse_python_int(std::string_view text, int base = 10);
std::optional<double> parse_python_float(std::string_view text);

} // namespace pinhole::jinja
