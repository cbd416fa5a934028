#include "text/grammar/number_range.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <map>
#include <tuple>

namespace pinhole::grammar {

std::optional<Decimal> Decimal::from_json(const Json& value) {
  std::string text;
  if (value.is_number_unsigned())
    text = fmt::format("{}", value.get<uint64_t>());
  else if (value.is_number_integer())
    text = fmt::format("{}", value.get<int64_t>());
  else if (value.is_number_float() && std::isfinite(value.get<double>()))
    text = fmt::format("{}", value.get<double>());
  else
    return std::nullopt;

  Decimal out;
  if (text.starts_with('-')) {
    out.negative = true;
    text.erase(0, 1);
  }
  int exponent = 0;
  if (const size_t e = text.find('e'); e != std::string::npos) {
    const size_t digits = text[e + 1] == '+' ? e + 2 : e + 1;
    std::from_chars(text.data() + digits, text.data() + text.size(), exponent);
    text.resize(e);
  }
  constexpr int kMaxExponent = 40;
  if (std::abs(exponent) > kMaxExponent)
    return std::nullopt;
  size_t point = text.find('.');
  if (point == std::string::npos)
    point = text.size();
  else
    text.erase(point, 1);
  auto whole = static_cast<int64_t>(point) + exponent; // digits before the point
  if (whole < 0) {
    text.insert(0, static_cast<size_t>(-whole), '0');
    whole = 0;
  }
  if (whole > static_cast<int64_t>(text.size()))
    text.append(static_cast<size_t>(whole) - text.size(), '0');
  out.integer = text.substr(0, static_cast<size_t>(whole));
  out.fraction = text.substr(static_cast<size_t>(whole));
  out.integer.erase(0, std::min(out.integer.find_first_not_of('0'), out.integer.size()));
  if (out.integer.empty())
    out.integer = "0";
  while (out.fraction.ends_with('0'))
    out.fraction.pop_back();
  if (out.is_zero())
    out.negative = false;
  return out;
}

size_t Decimal::significant_digits() const {
  return (integer == "0" ? 0 : integer.size()) + fraction.size();
}

int Decimal::compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative)
    return a.negative ? -1 : 1;
  const auto key = [](const Decimal& d) {
    return std::tuple(d.integer.size(), d.integer, d.fraction);
  };
  const auto left = key(a), right = key(b);
  const int sign = a.negative ? -1 : 1;
  return left < right ? -sign : right < left ? sign : 0;
}

namespace {

// Magnitudes whose integer part has `length` digits.
class DigitNodes {
 public:
  DigitNodes(const NumberBound& low, const NumberBound& high, size_t length, size_t max_fraction,
             Builder& builder, NodeId next)
      : low_(low.value.integer + low.value.fraction),
        high_(high.value.integer + high.value.fraction), low_exclusive_(low.exclusive),
        high_exclusive_(high.exclusive), length_(length), total_(length + max_fraction),
        builder_(builder), next_(next) {}

  // Equal so far to the low bound, to the high bound.
  NodeId from(size_t at, bool on_low, bool on_high) {
    const auto key = std::tuple(at, on_low, on_high);
    if (const auto it = known_.find(key); it != known_.end())
      return it->second;
    NodeId out = kFailNode;
    if (at < total_) {
      std::map<std::pair<bool, bool>, ByteSet> digits; // by what they lead to
      for (char digit = at == 0 && length_ > 1 ? '1' : '0'; digit <= '9'; ++digit) {
        const char low = digit_of(low_, at), high = digit_of(high_, at);
        if ((on_low && digit < low) || (on_high && digit > high))
          continue;
        digits[{on_low && digit == low, on_high && digit == high}].set(static_cast<uint8_t>(digit));
      }
      for (const auto& [bounds, set] : digits)
        out = builder_.either(builder_.bytes(set, from(at + 1, bounds.first, bounds.second)), out);
      if (at == length_)
        out = builder_.byte('.', out);
    }
    const bool above = !on_low || (rest_is_zero(low_, at) && !low_exclusive_);
    const bool below = !on_high || !rest_is_zero(high_, at) || !high_exclusive_;
    if (at >= length_ && above && below)
      out = builder_.either(next_, out);
    known_[key] = out;
    return out;
  }

 private:
  static char digit_of(const std::string& digits, size_t at) {
    return at < digits.size() ? digits[at] : '0';
  }
  static bool rest_is_zero(const std::string& digits, size_t at) {
    return digits.find_first_not_of('0', at) == std::string::npos;
  }

  std::string low_, high_;
  bool low_exclusive_, high_exclusive_;
  size_t length_, total_;
  Builder& builder_;
  NodeId next_;
  std::map<std::tuple<size_t, bool, bool>, NodeId> known_;
};

std::string power_of_ten(size_t exponent) {
  std::string out(exponent + 1, '0');
  out[0] = '1';
  return out;
}

NodeId magnitude_nodes(const NumberBound& low, const std::optional<NumberBound>& given_high,
                       bool integer, Builder& builder, NodeId next) {
  NumberBound high;
  if (given_high) {
    high = *given_high;
  } else {
    high.value.integer = integer ? "9223372036854775807" : power_of_ten(kNumberDigits);
    high.exclusive = !integer;
    if (Decimal::compare(low.value, high.value) >= 0)
      high.value.integer = power_of_ten(low.value.integer.size());
  }
  if (Decimal::compare(low.value, high.value) > 0)
    return kFailNode;
  NodeId out = kFailNode;
  const size_t shortest = low.value.integer.size(), longest = high.value.integer.size();
  for (size_t length = shortest; length <= longest; ++length) {
    size_t max_fraction = 0;
    if (!integer) {
      max_fraction = std::max({low.value.fraction.size(), high.value.fraction.size(),
                               kNumberDigits - std::min(kNumberDigits, length)});
    }
    DigitNodes digits(low, high, length, max_fraction, builder, next);
    out = builder.either(digits.from(0, length == shortest, length == longest), out);
  }
  return out;
}

} // namespace

NodeId number_nodes(const std::optional<NumberBound>& min, const std::optional<NumberBound>& max,
                    bool integer, Builder& builder, NodeId next) {
  const auto mirrored = [](NumberBound bound) {
    bound.value.negative = false;
    return bound;
  };
  NodeId out = kFailNode;
  if (!max || !max->value.negative) {
    NumberBound low; // 0
    if (min && !min->value.negative)
      low = *min;
    out = magnitude_nodes(low, max, integer, builder, next);
  }
  if (!min || min->value.negative) {
    NumberBound low; // of the magnitude: -0 is not written
    low.exclusive = true;
    if (max && max->value.negative)
      low = mirrored(*max);
    std::optional<NumberBound> high;
    if (min)
      high = mirrored(*min);
    out =
        builder.either(builder.byte('-', magnitude_nodes(low, high, integer, builder, next)), out);
  }
  return out;
}

} // namespace pinhole::grammar
