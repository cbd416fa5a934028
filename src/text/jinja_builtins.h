// Filters, tests, methods and global functions: tables by name, and how they read their arguments.
//
// Names and parameters are those of Jinja 3.1 and Python 3; tojson, raise_exception and
// strftime_now are transformers' own (utils/chat_template_utils.py).
#pragma once

#include "text/jinja_interpreter.h"

#include <array>
#include <fmt/format.h>
#include <string_view>

namespace pinhole::jinja {

// `self` is what is filtered or tested, or the object of a method.
using Native = Outcome<Value> (*)(Interpreter& in, const Value& self, Arguments& arguments);

struct NamedFunction {
  std::string_view name;
  Native run; // null: Python has it, nothing here implements it
};

const NamedFunction* find_filter(std::string_view name);
const NamedFunction* find_test(std::string_view name);
const NamedFunction* find_global(std::string_view name);
const NamedFunction* find_method(const Value& self, std::string_view name);
const NamedFunction* find_string_method(std::string_view name);

// printf-style `format % values` and str.format (jinja_format.cc).
Outcome<Value> format_percent(Interpreter& in, const Value& format, const Value& values);
Outcome<Value> format_braces(Interpreter& in, const Value& self, Arguments& arguments);
// strftime of the date `now` (Interpreter::now), C locale (jinja_strftime.cc).
Outcome<Value> format_time(Interpreter& in, std::string_view now, std::string_view format);
bool is_valid_time(std::string_view now);

// Arguments in the order of `names`; absent ones are null. The first `required` must be there.
template <size_t N>
Outcome<std::array<const Value*, N>>
bind(Interpreter& in, std::string_view function, const Arguments& arguments,
     const std::array<std::string_view, N>& names, size_t required = 0) {
  std::array<const Value*, N> out{};
  if (arguments.positional.size() > N) {
    return in.fail(fmt::format("{}() takes at most {} arguments ({} given)", function, N,
                               arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i)
    out[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    size_t i = 0;
    while (i < N && names[i] != name)
      ++i;
    if (i == N) {
      return in.fail(fmt::format("{}() got an unexpected keyword argument '{}'", function, name));
    }
    if (out[i] != nullptr) {
      return in.fail(fmt::format("{}() got multiple values for argument '{}'", function, name));
    }
    out[i] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (out[i] == nullptr) {
      return in.fail(fmt::format("{}() missing required argument: '{}'", function, names[i]));
    }
  }
  return out;
}

// An optional argument's value; a wrong type is an error.
Outcome<int64_t> int_or(Interpreter& in, const Value* value, int64_t fallback);
Outcome<std::string_view> string_argument(Interpreter& in, std::string_view function,
                                          const Value& value);
inline bool bool_or(const Value* value, bool fallback) {
  return value == nullptr ? fallback : is_true(*value);
}
inline bool is_given(const Value* value) { return value != nullptr && !value->is_none(); }

// Pieces shared by filters and methods.
Outcome<Value> replace_text(Interpreter& in, std::string_view text, std::string_view from,
                            std::string_view to, int64_t max_count, bool safe);
Outcome<Value> join_text(Interpreter& in, std::string_view separator,
                         const std::vector<Value>& items, bool safe);
Outcome<Value> pad_text(Interpreter& in, const Value& self, int64_t width, std::string_view fill,
                        int side); // side < 0: text on the left, 0: centred, > 0: on the right
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
Outcome<Value> to_json(Interpreter& in, const Value& self, Arguments& arguments);

// Parts of the table of filters.
extern const NamedFunction kSequenceFilters[];
extern const size_t kNumSequenceFilters;

} // namespace pinhole::jinja
