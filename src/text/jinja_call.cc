// Calls of macros, recursive loops and functions, and reading arguments.

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"

#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

// Takes the named argument out of `arguments`.
std::optional<Value> take_named(Arguments& arguments, std::string_view name) {
  for (auto it = arguments.named.begin(); it != arguments.named.end(); ++it) {
    if (it->first != name)
      continue;
    const Value value = it->second;
    arguments.named.erase(it);
    return value;
  }
  return std::nullopt;
}

} // namespace

Outcome<Value> Interpreter::call(const Value& callee, Arguments& arguments) {
  switch (callee.kind()) {
  case Kind::kUndefined:
    return fail_undefined(callee);
  case Kind::kCallable: {
    const Callable& callable = callee.callable();
    if (callable.macro != nullptr)
      return call_macro(*callable.macro, callable.scope, arguments);
    return callable.function->run(*this, callable.self, arguments);
  }
  case Kind::kLoop:
    return call_loop(callee.loop(), arguments);
  case Kind::kJoiner: {
    Joiner& joiner = callee.joiner();
    return std::exchange(joiner.used, true) ? joiner.separator : Value::string("");
  }
  default:
    return fail(fmt::format("'{}' object is not callable", type_name(callee)));
  }
}

Outcome<Value> Interpreter::call_macro(const Macro& macro, Scope* scope, Arguments& arguments) {
  const DepthGuard guard(*this);
  if (guard.too_deep())
    JINJA_CHECK(too_deep());
  auto* frame = heap_.make<Scope>(scope);
  const size_t expected = macro.parameters.size();
  std::vector<const Macro::Parameter*> missing;
  bool takes_caller = macro.uses_caller;
  for (size_t i = 0; i < expected; ++i) {
    const Macro::Parameter& parameter = macro.parameters[i];
    if (parameter.name == "caller")
      takes_caller = false;
    if (i < arguments.positional.size()) {
      frame->set(parameter.symbol, arguments.positional[i]);
    } else if (const auto value = take_named(arguments, parameter.name)) {
      frame->set(parameter.symbol, *value);
    } else {
      missing.push_back(&parameter);
    }
  }
  if (takes_caller) {
    const auto caller = take_named(arguments, "caller");
    const bool given = caller && !caller->is_none();
    frame->set(*caller_symbol_, given ? *caller : absent("No caller defined"));
  }
  if (macro.uses_kwargs) {
    auto* dict = heap_.make<Dict>();
    for (const auto& [name, value] : arguments.named) {
      JINJA_CHECK(set_key(*dict, Value::string(name), value));
    }
    frame->set(*kwargs_symbol_, Value::object(Kind::kDict, dict));
  } else if (!arguments.named.empty()) {
    return fail(fmt::format("macro '{}' takes no keyword argument '{}'", macro.name,
                            arguments.named[0].first));
  }
  if (macro.uses_varargs) {
    const auto& given = arguments.positional;
    const auto first = static_cast<ptrdiff_t>(std::min(expected, given.size()));
    frame->set(*varargs_symbol_, sequence(Sequence::Type::kTuple,
                                          std::vector<Value>(given.begin() + first, given.end())));
  } else if (arguments.positional.size() > expected) {
    return fail(fmt::format("macro '{}' takes not more than {} argument(s)", macro.name, expected));
  }
  Scope* outer = std::exchange(scope_, frame);
  for (const Macro::Parameter* parameter : missing) {
    Value value;
    if (parameter->fallback != nullptr) {
      JINJA_TRY(value, eval(*parameter->fallback));
    } else {
      value = absent(heap_.keep(fmt::format("parameter '{}' was not provided", parameter->name)));
    }
    frame->set(parameter->symbol, value);
  }
  auto text = render_body(macro.body, frame);
  scope_ = outer;
  return text;
}

Outcome<Value> Interpreter::call_loop(Loop& loop, Arguments& arguments) {
  const DepthGuard guard(*this);
  if (guard.too_deep())
    JINJA_CHECK(too_deep());
  if (loop.statement == nullptr) {
    return fail("The loop must have the 'recursive' marker to be called recursively.");
  }
  JINJA_TRY(const auto args, (bind<1>(*this, "loop", arguments, {"iterable"}, 1)));
  Scope* outer_scope = std::exchange(scope_, loop.scope);
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  const auto flow = run_loop(*loop.statement, *args[0], loop.depth0 + 1);
  out_ = outer;
  scope_ = outer_scope;
  if (!flow)
    return failed();
  return string(std::move(text));
}

Outcome<int64_t> int_or(Interpreter& in, const Value* value, int64_t fallback) {
  if (value == nullptr)
    return fallback;
  if (value->is_integral())
    return value->as_int();
  if (value->is_undefined())
    return in.fail_undefined(*value);
  return in.fail(fmt::format("'{}' object cannot be interpreted as an integer", type_name(*value)));
}

Outcome<std::string_view> string_argument(Interpreter& in, std::string_view function,
                                          const Value& value) {
  if (value.is_string())
    return value.text();
  if (value.is_undefined())
    return in.fail_undefined(value);
  return in.fail(fmt::format("{}() argument must be str, not {}", function, type_name(value)));
}

} // namespace pinhole::jinja
