// Statements, and the frame of a rendering.

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"

#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

constexpr int kMaxJsonDepth = 200;

std::optional<Symbol> symbol_of(const Ast& ast, std::string_view name) {
  const auto it = ast.symbol_ids.find(name);
  return it == ast.symbol_ids.end() ? std::nullopt : std::optional<Symbol>(it->second);
}

} // namespace

Interpreter::Interpreter(const Ast& ast, const Limits& limits)
    : ast_(ast), limits_(limits), heap_(limits.max_steps, limits.max_bytes),
      loop_symbol_(symbol_of(ast, "loop")), caller_symbol_(symbol_of(ast, "caller")),
      varargs_symbol_(symbol_of(ast, "varargs")), kwargs_symbol_(symbol_of(ast, "kwargs")) {}

tl::unexpected<Failed> Interpreter::fail(std::string message, ErrorCode code, std::string hint) {
  if (!has_error_) {
    has_error_ = true;
    error_ = Error{code, std::move(message), describe_position(ast_, at_), std::move(hint)};
  }
  return failed();
}

Done Interpreter::too_deep() {
  return fail(fmt::format("the template recurses deeper than {} levels", limits_.max_depth),
              ErrorCode::kTooLarge);
}

Done Interpreter::step(uint64_t count) {
  heap_.step(count);
  if (!heap_.exhausted())
    return {};
  if (heap_.out_of_steps()) {
    return fail(fmt::format("the template does more than {} steps", limits_.max_steps),
                ErrorCode::kTooLarge);
  }
  return fail(fmt::format("the template makes more than {} bytes", limits_.max_bytes),
              ErrorCode::kTooLarge);
}

Done Interpreter::need(uint64_t bytes) {
  if (heap_.has_room(bytes))
    return {};
  return fail(fmt::format("the template makes more than {} bytes", limits_.max_bytes),
              ErrorCode::kTooLarge);
}

Outcome<Value> Interpreter::string(std::string text, bool safe) {
  JINJA_CHECK(work(text.size()));
  JINJA_CHECK(need(text.size()));
  return Value::string(heap_.keep(std::move(text)), safe);
}

Outcome<Value> Interpreter::from_json(const Json& json, int depth) {
  if (depth > kMaxJsonDepth) {
    return fail(fmt::format("the context is nested deeper than {} levels", kMaxJsonDepth),
                ErrorCode::kTooLarge);
  }
  switch (json.type()) {
  case Json::value_t::boolean:
    return Value::boolean(json.get<bool>());
  case Json::value_t::number_integer:
    return Value::integer(json.get<int64_t>());
  case Json::value_t::number_unsigned: {
    const auto number = json.get<uint64_t>();
    if (number > INT64_MAX) {
      return fail(
          fmt::format("the context has the integer {}, expected at most {}", number, INT64_MAX),
          ErrorCode::kTooLarge);
    }
    return Value::integer(static_cast<int64_t>(number));
  }
  case Json::value_t::number_float:
    return Value::number(json.get<double>());
  case Json::value_t::string:
    return Value::string(json.get_ref<const std::string&>());
  case Json::value_t::array: {
    std::vector<Value> items;
    items.reserve(json.size());
    for (const Json& element : json) {
      JINJA_TRY(const Value value, from_json(element, depth + 1));
      items.push_back(value);
    }
    return list(std::move(items));
  }
  case Json::value_t::object: {
    auto* dict = heap_.make<Dict>();
    dict->entries.reserve(json.size());
    for (auto it = json.begin(); it != json.end(); ++it) {
      JINJA_TRY(const Value value, from_json(it.value(), depth + 1));
      dict->append(Value::string(it.key()), value);
    }
    return Value::object(Kind::kDict, dict);
  }
  default:
    return Value::none();
  }
}

// Variables that the template names: global functions, then the context over them.
Done Interpreter::enter_context(const Json& context) {
  const Json* now = json_find(context, "strftime_now");
  if (now != nullptr) {
    if (!now->is_string() || !is_valid_time(now->get_ref<const std::string&>())) {
      return fail("context 'strftime_now' must be a date: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS");
    }
    now_ = now->get<std::string>();
  }
  scope_ = heap_.make<Scope>(nullptr);
  for (Symbol symbol = 0; symbol < ast_.symbols.size(); ++symbol) {
    const std::string_view name = ast_.symbols[symbol];
    if (name == "strftime_now" && now_.empty())
      continue;
    if (const NamedFunction* function = find_global(name)) {
      scope_->set(symbol, bound_method(Value(), function));
    } else if (name == "tools" || name == "documents") { // apply_chat_template always passes them
      scope_->set(symbol, Value::none());
    } else if (name == "add_generation_prompt") {
      scope_->set(symbol, Value::boolean(false));
    }
  }
  scope_ = heap_.make<Scope>(scope_);
  for (auto it = context.begin(); it != context.end(); ++it) {
    if (it.key() == "strftime_now")
      continue;
    const auto symbol = symbol_of(ast_, it.key());
    if (!symbol)
      continue;
    JINJA_TRY(const Value value, from_json(it.value()));
    scope_->set(*symbol, value);
  }
  return {};
}

Result<std::string> Interpreter::render(const Json& context) {
  std::string out;
  out_ = &out;
  bool good = context.is_object();
  if (!good)
    (void)fail("the context of a chat template must be an object");
  good = good && enter_context(context);
  // A scope between the context and the template: what it sets hides the context, as in Jinja.
  good = good && exec_body(ast_.body) && step(0);
  if (!good)
    return tl::unexpected<Error>(std::move(error_));
  return out;
}

Done Interpreter::emit(std::string_view text) {
  JINJA_CHECK(need(text.size()));
  heap_.take(text.size());
  out_->append(text);
  return {};
}

Done Interpreter::print(const Value& value) {
  if (value.is_string())
    return emit(value.text());
  std::string text;
  JINJA_CHECK(append_text(text, value));
  return emit(text);
}

Outcome<Interpreter::Flow> Interpreter::exec_body(const std::vector<Statement*>& body) {
  for (const Statement* statement : body) {
    JINJA_TRY(const Flow flow, exec(*statement));
    if (flow != Flow::kNext)
      return flow;
  }
  return Flow::kNext;
}

Outcome<Interpreter::Flow> Interpreter::exec_scoped(const std::vector<Statement*>& body,
                                                    Scope* scope) {
  Scope* outer = std::exchange(scope_, scope);
  auto flow = exec_body(body);
  scope_ = outer;
  return flow;
}

Outcome<Interpreter::Flow> Interpreter::exec(const Statement& statement) {
  const DepthGuard guard(*this);
  at_ = statement.at;
  if (guard.too_deep())
    JINJA_CHECK(too_deep());
  JINJA_CHECK(step());
  switch (statement.kind) {
  case StatementKind::kText:
    JINJA_CHECK(emit(statement.text));
    break;
  case StatementKind::kPrint: {
    JINJA_TRY(const Value value, eval(*statement.value));
    JINJA_CHECK(print(value));
    break;
  }
  case StatementKind::kIf:
    return exec_if(statement);
  case StatementKind::kFor:
    return exec_for(statement);
  case StatementKind::kSet: {
    JINJA_TRY(const Value value, eval(*statement.value));
    JINJA_CHECK(assign(*statement.target, value));
    break;
  }
  case StatementKind::kSetBlock:
  case StatementKind::kFilter: {
    JINJA_TRY(Value value, render_body(statement.body, heap_.make<Scope>(scope_)));
    if (statement.value != nullptr) {
      JINJA_TRY(value, apply_filters(*statement.value, value));
    }
    if (statement.kind == StatementKind::kFilter)
      JINJA_CHECK(print(value));
    else
      JINJA_CHECK(assign(*statement.target, value));
    break;
  }
  case StatementKind::kMacro:
    JINJA_CHECK(exec_macro(statement));
    break;
  case StatementKind::kCallBlock:
    JINJA_CHECK(exec_call_block(statement));
    break;
  case StatementKind::kWith: {
    Scope* outer = scope_;
    JINJA_CHECK(exec_with(statement));
    auto flow = exec_body(statement.body);
    scope_ = outer;
    return flow;
  }
  case StatementKind::kScope:
    return exec_scoped(statement.body, heap_.make<Scope>(scope_));
  case StatementKind::kBreak:
    return Flow::kBreak;
  case StatementKind::kContinue:
    return Flow::kContinue;
  }
  return Flow::kNext;
}

Outcome<Interpreter::Flow> Interpreter::exec_if(const Statement& statement) {
  for (const Statement::Branch& branch : statement.branches) {
    JINJA_TRY(const Value condition, eval(*branch.condition));
    if (is_true(condition))
      return exec_body(branch.body);
  }
  return exec_body(statement.other);
}

Outcome<Interpreter::Flow> Interpreter::exec_for(const Statement& statement) {
  JINJA_TRY(const Value iterable, eval(*statement.value));
  at_ = statement.value->at;
  if (!statement.recursive) {
    return run_loop(statement, iterable, 0);
  }
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  const auto flow = run_loop(statement, iterable, 0);
  out_ = outer;
  JINJA_CHECK(flow);
  JINJA_CHECK(emit(text));
  return Flow::kNext;
}

// Each iteration has a scope of its own; what it sets is gone in the next one.
Outcome<Interpreter::Flow> Interpreter::run_loop(const Statement& statement, const Value& iterable,
                                                 int64_t depth0) {
  JINJA_TRY(std::vector<Value> items, iterate(iterable));
  Scope* outer = scope_;
  if (statement.condition != nullptr) {
    std::vector<Value> kept;
    scope_ = heap_.make<Scope>(outer);
    for (const Value& value : items) {
      JINJA_CHECK(assign(*statement.target, value));
      JINJA_TRY(const Value condition, eval(*statement.condition));
      if (is_true(condition))
        kept.push_back(value);
    }
    scope_ = outer;
    items = std::move(kept);
  }
  auto* loop = heap_.make<Loop>();
  loop->depth0 = depth0;
  loop->items = std::move(items);
  loop->statement = statement.recursive ? &statement : nullptr;
  loop->scope = outer;
  Scope* scope = heap_.make<Scope>(outer);
  bool completed =
      false; // an iteration reached its end: as in Jinja, the else part runs unless one did
  for (; loop->index0 < loop->items.size(); ++loop->index0) {
    if (scope->captured)
      scope = heap_.make<Scope>(outer);
    scope->variables.clear();
    scope_ = scope;
    if (loop_symbol_)
      scope->variables.emplace_back(*loop_symbol_, Value::object(Kind::kLoop, loop));
    at_ = statement.at;
    JINJA_CHECK(step());
    JINJA_CHECK(assign(*statement.target, loop->items[loop->index0]));
    JINJA_TRY(const Flow flow, exec_body(statement.body));
    completed = completed || flow == Flow::kNext;
    if (flow == Flow::kBreak)
      break;
  }
  heap_.give_back(loop->items.size() * sizeof(Value));
  scope_ = outer;
  if (completed || statement.other.empty())
    return Flow::kNext;
  return exec_scoped(statement.other, heap_.make<Scope>(outer));
}

Outcome<Value> Interpreter::render_body(const std::vector<Statement*>& body, Scope* scope) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  const auto flow = exec_scoped(body, scope);
  out_ = outer;
  if (!flow)
    return failed();
  return string(std::move(text));
}

Value Interpreter::define_macro(const Macro& macro) {
  auto* callable = heap_.make<Callable>();
  callable->macro = &macro;
  callable->scope = scope_;
  for (Scope* scope = scope_; scope != nullptr && !scope->captured; scope = scope->parent) {
    scope->captured = true;
  }
  return Value::object(Kind::kCallable, callable);
}

Done Interpreter::exec_macro(const Statement& statement) {
  scope_->set(statement.symbol, define_macro(*statement.macro));
  return {};
}

Done Interpreter::exec_call_block(const Statement& statement) {
  const Value caller = define_macro(*statement.macro);
  JINJA_TRY(const Value function, eval(*statement.value->first));
  Arguments arguments;
  JINJA_CHECK(eval_arguments(statement.value->arguments, arguments));
  arguments.named.emplace_back("caller", caller);
  at_ = statement.value->at;
  JINJA_TRY(const Value value, call(function, arguments));
  return print(value);
}

Done Interpreter::exec_with(const Statement& statement) {
  auto* scope = heap_.make<Scope>(scope_);
  std::vector<Value> values;
  for (const auto& assignment : statement.assignments) {
    JINJA_TRY(const Value value, eval(*assignment.second));
    values.push_back(value);
  }
  scope_ = scope;
  for (size_t i = 0; i < values.size(); ++i) {
    JINJA_CHECK(assign(*statement.assignments[i].first, values[i]));
  }
  return {};
}

Done Interpreter::assign(const Target& target, const Value& value) {
  if (target.is_tuple) {
    JINJA_TRY(const std::vector<Value> items, iterate(value));
    const size_t expected = target.items.size();
    if (items.size() != expected) {
      at_ = target.at;
      return fail(items.size() < expected
                      ? fmt::format("not enough values to unpack (expected {}, got {})", expected,
                                    items.size())
                      : fmt::format("too many values to unpack (expected {})", expected));
    }
    for (size_t i = 0; i < expected; ++i)
      JINJA_CHECK(assign(*target.items[i], items[i]));
    heap_.give_back(items.size() * sizeof(Value));
    return {};
  }
  if (target.attribute.empty()) {
    const size_t capacity = scope_->variables.capacity();
    scope_->set(target.symbol, value);
    heap_.take((scope_->variables.capacity() - capacity) * sizeof(scope_->variables[0]));
    return {};
  }
  const Value* owner = nullptr;
  for (Scope* scope = scope_; scope != nullptr && owner == nullptr; scope = scope->parent) {
    owner = scope->find(target.symbol);
  }
  if (owner == nullptr || !owner->is(Kind::kNamespace)) {
    at_ = target.at;
    return fail("cannot assign attribute on non-namespace object");
  }
  return set_key(owner->dict(), Value::string(target.attribute), value);
}

} // namespace pinhole::jinja
