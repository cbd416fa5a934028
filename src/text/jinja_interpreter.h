// Renders a syntax tree: a tree-walking interpreter with Python's semantics, bounded in recursion,
// steps and memory. Nothing is thrown: an operation that fails records the first error and returns
// Failed.
//
// Source: Jinja 3.1 (Undefined, LoopContext, Macro, sandbox), Python 3 language reference.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "text/jinja_ast.h"
#include "text/jinja_value.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pinhole::jinja {

// What one rendering may use. The defaults grow with the context, so long chats fit.
struct Limits {
  uint64_t max_steps = 10'000'000; // about a second; a chat of 100 messages takes 20 thousand
  uint64_t max_bytes = 64u << 20;  // strings, lists and output made while rendering
  int max_depth = 1200;            // recursion of the interpreter: macros, blocks, expressions
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;
};

struct Scope : Object {
  explicit Scope(Scope* outer) : parent(outer) {}
  Scope* parent;
  bool captured = false; // a macro defined inside may outlive the scope
  std::vector<std::pair<Symbol, Value>> variables;
  Value* find(Symbol symbol) {
    for (auto& [name, value] : variables) {
      if (name == symbol)
        return &value;
    }
    return nullptr;
  }
  void set(Symbol symbol, const Value& value) {
    if (Value* existing = find(symbol))
      *existing = value;
    else
      variables.emplace_back(symbol, value);
  }
};

// A macro, a method bound to its object, or a global function.
struct Callable : Object {
  const Macro* macro = nullptr;
  Scope* scope = nullptr; // where the macro was defined
  Value self;
  const NamedFunction* function = nullptr;
};

struct Loop : Object {
  std::vector<Value> items;
  size_t index0 = 0;
  int64_t depth0 = 0;
  std::optional<std::vector<Value>> last_changed;
  const Statement* statement = nullptr; // of a recursive loop
  Scope* scope = nullptr;               // around the loop
};

class Interpreter {
 public:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  Interpreter(const Ast& ast, const Limits& limits);

  Result<std::string> render(const Json& context);

  Heap& heap() { return heap_; }

  // Records an error at the operation that is being evaluated.
  tl::unexpected<Failed> fail(std::string message, ErrorCode code = ErrorCode::kInvalidInput,
                              std::string hint = {});
  tl::unexpected<Failed> fail_undefined(const Value& value);
  std::string undefined_message(const Value& value) const;

  // Bounds.
  Done step(uint64_t count = 1);
  Done work(uint64_t bytes) { return step(1 + bytes / 64); } // scanning or copying text
  Done need(uint64_t bytes);                                 // before a large allocation

  // Making values.
  Outcome<Value> string(std::string text, bool safe = false);
  Value absent(std::string_view hint);
  Value absent_name(std::string_view name);
  Value absent_member(const Value& owner, const Value& name);
  Outcome<Value> from_json(const Json& json, int depth = 0);
  Value list(std::vector<Value> items) { return sequence(Sequence::Type::kList, std::move(items)); }
  Value sequence(Sequence::Type type, std::vector<Value> items) {
    return make_sequence(heap_, type, std::move(items));
  }
  Value bound_method(const Value& self, const NamedFunction* method);

  // Text (jinja_print.cc).
  Done append_text(std::string& out, const Value& value); // str(value)
  Done append_repr(std::string& out, const Value& value, int depth = 0);
  Outcome<std::string_view> text_of(const Value& value); // str(value)
  std::string short_repr(const Value& value);            // for errors: never fails

  // Operations (jinja_ops.cc).
  Outcome<bool> equals(const Value& left, const Value& right, int depth = 0);
  Outcome<bool> compare(Operator op, const Value& left, const Value& right, int depth = 0);
  Outcome<bool> contains(const Value& container, const Value& item);
  Outcome<Value> binary(Operator op, const Value& left, const Value& right);
  Outcome<Value> add(const Value& left, const Value& right);
  Outcome<Value> negate(const Value& value);
  Outcome<std::vector<Value>> iterate(const Value& value); // a generator is used up
  Outcome<int64_t> length(const Value& value);
  Outcome<Value*> find_key(Dict& dict, const Value& key); // null when absent
  Done set_key(Dict& dict, const Value& key, const Value& value);

  // Members (jinja_members.cc).
  Outcome<Value> attribute(const Value& value, std::string_view name); // value.name
  Outcome<Value> item(const Value& value, const Value& key);           // value[key]
  Outcome<Value> slice(const Value& value, const Value& start, const Value& stop,
                       const Value& step);

  // Calls (jinja_call.cc).
  Outcome<Value> call(const Value& callee, Arguments& arguments);
  Outcome<Value> call_macro(const Macro& macro, Scope* scope, Arguments& arguments);
  Outcome<Value> call_loop(Loop& loop, Arguments& arguments);

  // The date and time that strftime_now tells: "YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS"; may be empty.
  std::string_view now() const { return now_; }

 private:
  class DepthGuard;

  Done enter_context(const Json& context);
  Done too_deep();

  // Expressions (jinja_eval.cc).
  Outcome<Value> eval(const Expr& expr);
  Outcome<Value> eval_node(const Expr& expr);
  Outcome<Value> eval_name(const Expr& expr);
  Outcome<Value> eval_items(const Expr& expr, Sequence::Type type);
  Outcome<Value> eval_dict(const Expr& expr);
  Outcome<Value> eval_concat(const Expr& expr);
  Outcome<Value> eval_compare(const Expr& expr);
  Outcome<Value> eval_conditional(const Expr& expr);
  Outcome<Value> eval_slice(const Expr& expr);
  Outcome<Value> eval_call(const Expr& expr);
  Outcome<Value> eval_filter_or_test(const Expr& expr);
  Outcome<Value> apply_filters(const Expr& expr, const Value& input); // of a filter or set block
  Done eval_arguments(const CallArguments* call, Arguments& out);

  // Statements (jinja_exec.cc).
  Outcome<Flow> exec(const Statement& statement);
  Outcome<Flow> exec_body(const std::vector<Statement*>& body);
  Outcome<Flow> exec_scoped(const std::vector<Statement*>& body, Scope* scope);
  Outcome<Flow> exec_if(const Statement& statement);
  Outcome<Flow> exec_for(const Statement& statement);
  Outcome<Flow> run_loop(const Statement& statement, const Value& iterable, int64_t depth0);
  Done exec_macro(const Statement& statement);
  Done exec_call_block(const Statement& statement);
  Done exec_with(const Statement& statement);
  Outcome<Value> render_body(const std::vector<Statement*>& body, Scope* scope);
  Done assign(const Target& target, const Value& value);
  Done print(const Value& value);
  Done emit(std::string_view text);
  Value define_macro(const Macro& macro);

  const Ast& ast_;
  Limits limits_;
  Heap heap_;
  Scope* scope_ = nullptr;
  std::string* out_ = nullptr;
  const Value* block_input_ = nullptr; // what the innermost filter of a filter block is given
  Position at_ = 0;
  int depth_ = 0;
  std::string now_;
  std::optional<Symbol> loop_symbol_, caller_symbol_, varargs_symbol_, kwargs_symbol_;
  bool has_error_ = false;
  Error error_;
};

// Counts the levels of the interpreter's recursion.
class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(Interpreter& in) : in_(in) { ++in_.depth_; }
  ~DepthGuard() { --in_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;
  bool too_deep() const { return in_.depth_ > in_.limits_.max_depth; }

 private:
  Interpreter& in_;
};

inline Callable& Value::callable() const { return static_cast<Callable&>(*object_); }
inline Loop& Value::loop() const { return static_cast<Loop&>(*object_); }

} // namespace pinhole::jinja
