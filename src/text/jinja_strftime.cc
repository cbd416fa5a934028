// strftime_now: a date given by the caller, formatted as C's strftime does in the C locale.

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

#include <array>
#include <ctime>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

constexpr std::array<int, 12> kDaysInMonth = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

bool is_leap(int year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

// Two or four digits at `at`; -1 when they are not digits.
int digits(std::string_view text, size_t at, size_t count) {
  int out = 0;
  for (size_t i = at; i < at + count; ++i) {
    if (i >= text.size() || text[i] < '0' || text[i] > '9')
      return -1;
    out = out * 10 + (text[i] - '0');
  }
  return out;
}

// "YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS" (a space instead of the T is fine).
std::optional<std::tm> parse_time(std::string_view text) {
  std::tm out{};
  const int year = digits(text, 0, 4);
  const int month = digits(text, 5, 2);
  const int day = digits(text, 8, 2);
  if (text.size() < 10 || text[4] != '-' || text[7] != '-' || year < 1 || month < 1 || month > 12) {
    return std::nullopt;
  }
  const int in_month =
      kDaysInMonth[static_cast<size_t>(month - 1)] + (month == 2 && is_leap(year) ? 1 : 0);
  if (day < 1 || day > in_month)
    return std::nullopt;
  out.tm_year = year - 1900;
  out.tm_mon = month - 1;
  out.tm_mday = day;
  out.tm_yday = day - 1;
  for (int i = 0; i < month - 1; ++i) {
    out.tm_yday += kDaysInMonth[static_cast<size_t>(i)] + (i == 1 && is_leap(year) ? 1 : 0);
  }
  // Days since 1 January of year 1, a Monday.
  const int before = year - 1;
  const int days = before * 365 + before / 4 - before / 100 + before / 400 + out.tm_yday;
  out.tm_wday = (days + 1) % 7;
  if (text.size() == 10)
    return out;
  out.tm_hour = digits(text, 11, 2);
  out.tm_min = digits(text, 14, 2);
  out.tm_sec = digits(text, 17, 2);
  const bool good = text.size() == 19 && (text[10] == 'T' || text[10] == ' ') && text[13] == ':' &&
                    text[16] == ':' && out.tm_hour >= 0 && out.tm_hour < 24 && out.tm_min >= 0 &&
                    out.tm_min < 60 && out.tm_sec >= 0 && out.tm_sec < 61;
  return good ? std::optional<std::tm>(out) : std::nullopt;
}

} // namespace

bool is_valid_time(std::string_view now) { return parse_time(now).has_value(); }

Outcome<Value> format_time(Interpreter& in, std::string_view now, std::string_view format) {
  constexpr size_t kMaxFormatBytes = 1000;
  if (format.size() > kMaxFormatBytes) {
    return in.fail(fmt::format("strftime_now: the format has {} bytes, at most {} are accepted",
                               format.size(), kMaxFormatBytes),
                   ErrorCode::kTooLarge);
  }
  const std::tm time = *parse_time(now);
  std::string out;
  for (size_t at = 0; at < format.size(); ++at) {
    if (format[at] != '%' || at + 1 >= format.size()) {
      out.push_back(format[at]);
      continue;
    }
    // One conversion at a time, so that its result is bounded: flag, then letter.
    std::string conversion = "%";
    ++at;
    while (at + 1 < format.size() &&
           std::string_view("-_0^#EO").find(format[at]) != std::string_view::npos) {
      if (format[at] != 'E' && format[at] != 'O')
        conversion.push_back(format[at]);
      ++at;
    }
    conversion.push_back(format[at]);
    if (format[at] == 'f') { // Python's microseconds
      out += "000000";
      continue;
    }
    if (format[at] == 'Z' || format[at] == 'z')
      continue; // a naive date has no zone
    if (std::string_view("aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyY%").find(format[at]) ==
        std::string_view::npos) {
      out += conversion; // as glibc leaves what it does not know
      continue;
    }
    std::array<char, 128> buffer;
    const size_t size = std::strftime(buffer.data(), buffer.size(), conversion.c_str(), &time);
    out.append(buffer.data(), size);
  }
  return in.string(std::move(out));
}

} // namespace pinhole::jinja
