// Syntax tree of a chat template, and its source text.
//
// Every node carries the byte offset of its first token; line and column are worked out when an
// error is reported. String views point into Ast::source and Ast::strings, so an Ast stays where it
// is. Source: Jinja 3.1 template designer documentation.
#pragma once

#include "text/jinja_value.h"

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pinhole::jinja {

using Symbol = uint32_t;   // a variable name, by its index in Ast::symbols
using Position = uint32_t; // byte offset in Ast::source

struct NamedFunction; // a filter, test or method: jinja_builtins.h
struct Expr;

struct CallArguments {
  std::vector<Expr*> positional;
  std::vector<std::pair<std::string_view, Expr*>> named;
  Expr* star = nullptr;        // *values
  Expr* double_star = nullptr; // **mapping
};

enum class ExprKind : uint8_t {
  kConstant,    // constant
  kName,        // symbol, name
  kList,        // items
  kTuple,       // items
  kDict,        // items: key, value, key, value
  kConcat,      // items: a ~ b ~ c
  kNot,         // first
  kNegate,      // first
  kPlus,        // first
  kAnd,         // first, second
  kOr,          // first, second
  kBinary,      // op, first, second
  kCompare,     // first, operators[i] items[i]
  kConditional, // second if first else third (third may be null)
  kAttribute,   // first.name
  kItem,        // first[second]
  kSlice,       // first[items[0]:items[1]:items[2]], each may be null
  kCall,        // first(arguments)
  kFilter,      // first|name(arguments); first is null inside filter and set blocks
  kTest,        // first is name(arguments)
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  Operator op = Operator::kAdd;
  uint16_t depth = 1; // levels of nodes below and including this one
  Position at = 0;
  Symbol symbol = 0;
  std::string_view name;
  Value constant;
  Expr* first = nullptr;
  Expr* second = nullptr;
  Expr* third = nullptr;
  std::vector<Expr*> items;
  std::vector<Operator> operators;
  CallArguments* arguments = nullptr;
  const NamedFunction* function = nullptr; // filter or test; null when there is none of that name
};

// Where an assignment goes: a name, namespace.attribute, or a tuple of targets.
struct Target {
  Position at = 0;
  Symbol symbol = 0;
  std::string_view attribute; // not empty: symbol is a namespace
  bool is_tuple = false;
  std::vector<Target*> items;
};

struct Statement;

struct Macro {
  struct Parameter {
    Symbol symbol;
    std::string_view name;
    Expr* fallback; // default value, or null
  };
  Position at = 0;
  std::string_view name; // "caller" for the body of a call block
  std::vector<Parameter> parameters;
  std::vector<Statement*> body;
  // The body reads these special names, so the macro accepts what they stand for.
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

enum class StatementKind : uint8_t {
  kText,      // text
  kPrint,     // value
  kIf,        // branches; other: else
  kFor,       // target in value if condition: body; other: else
  kSet,       // target = value
  kSetBlock,  // target = body, through the filters of value
  kMacro,     // macro
  kCallBlock, // value is the call, macro the caller
  kFilter,    // body through the filters of value
  kWith,      // assignments, body in a scope of its own
  kScope,     // body in a scope of its own
  kBreak,
  kContinue,
};

struct Statement {
  struct Branch {
    Expr* condition;
    std::vector<Statement*> body;
  };
  StatementKind kind = StatementKind::kText;
  bool recursive = false;
  Position at = 0;
  std::string_view text;
  Expr* value = nullptr;
  Expr* condition = nullptr;
  Target* target = nullptr;
  Macro* macro = nullptr;
  Symbol symbol = 0; // of the macro's name
  std::vector<Branch> branches;
  std::vector<std::pair<Target*, Expr*>> assignments;
  std::vector<Statement*> body;
  std::vector<Statement*> other;
};

struct Ast {
  std::string where;  // name of the template in errors
  std::string source; // line ends are '\n', the last one removed
  std::deque<std::string> strings;
  std::deque<Expr> expressions;
  std::deque<CallArguments> calls;
  std::deque<Target> targets;
  std::deque<Macro> macros;
  std::deque<Statement> statements;
  std::vector<std::string_view> symbols;
  std::unordered_map<std::string_view, Symbol> symbol_ids;
  std::vector<Statement*> body;

  Symbol intern(std::string_view name) {
    const auto [it, is_new] = symbol_ids.try_emplace(name, static_cast<Symbol>(symbols.size()));
    if (is_new)
      symbols.push_back(name);
    return it->second;
  }
};

// "where, line 3, column 14", both counted from 1, columns in characters.
std::string describe_position(const Ast& ast, Position at);

} // namespace pinhole::jinja
