// JSON numbers within bounds, digit by digit: exact, whatever the number of digits.
//
// A bound is a decimal; the automaton keeps, digit by digit, whether the number is still equal to
// the lower or the upper one. Numbers are written without exponent and without leading zeros.
#pragma once

#include "base/json.h"
#include "text/grammar/program.h"

#include <optional>

namespace pinhole::grammar {

struct Decimal {
  bool negative = false;
  std::string integer = "0"; // without leading zeros
  std::string fraction;      // without trailing zeros

  // The exact value of a JSON integer, the shortest spelling of any other number. nullopt: not a
  // number, or further than 10^40 from one digit.
  static std::optional<Decimal> from_json(const Json& value);
  bool is_zero() const { return integer == "0" && fraction.empty(); }
  size_t significant_digits() const;
  // As strcmp, of values.
  static int compare(const Decimal& a, const Decimal& b);
};

struct NumberBound {
  Decimal value;
  bool exclusive = false;
};

// Numbers have at most this many digits, so that as doubles they are on the same side of a bound.
inline constexpr size_t kNumberDigits = 15;

// Integers without a bound stay within 64 bits (signed); numbers below 10^15.
NodeId number_nodes(const std::optional<NumberBound>& min, const std::optional<NumberBound>& max,
                    bool integer, Builder& builder, NodeId next);

} // namespace pinhole::grammar
