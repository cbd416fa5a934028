// Values of a template while it is rendered, and the heap that owns them.
//
// A Value is a small copyable handle. Lists, dicts and the rest are objects of one Heap per
// rendering and live until it ends, so cycles and deep nesting need no care when they die. The heap
// counts steps and bytes: what a hostile template can use is bounded by them.
#pragma once

#include "base/json.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pinhole::jinja {

// The operation failed; the interpreter or parser holds the error.
struct Failed {};
template <class T> using Outcome = tl::expected<T, Failed>;
using Done = Outcome<void>;
inline tl::unexpected<Failed> failed() { return tl::unexpected<Failed>(Failed{}); }

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kSequence,
  kDict,
  kNamespace,
  kRange,
  kCallable,
  kLoop,
  kCycler,
  kJoiner,
};

struct Object {
  virtual ~Object() = default;
};
struct Absence;
struct Sequence;
struct Dict;
struct Range;
struct Callable;
struct Loop;
struct Cycler;
struct Joiner;

class Value {
 public:
  Value() : integer_(0) {}
  static Value none() { return Value(Kind::kNone); }
  static Value boolean(bool value) {
    Value out(Kind::kBool);
    out.integer_ = value ? 1 : 0;
    return out;
  }
  static Value integer(int64_t value) {
    Value out(Kind::kInt);
    out.integer_ = value;
    return out;
  }
  static Value number(double value) {
    Value out(Kind::kFloat);
    out.number_ = value;
    return out;
  }
  // `text` must outlive the value: template source, context, heap. `safe`: already escaped
  // (Markup).
  static Value string(std::string_view text, bool safe = false) {
    Value out(Kind::kString);
    out.chars_ = text.data();
    out.size_ = text.size();
    out.safe_ = safe;
    return out;
  }
  static Value object(Kind kind, Object* object) {
    Value out(kind);
    out.object_ = object;
    return out;
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_safe() const { return kind_ == Kind::kString && safe_; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }

  bool as_bool() const { return integer_ != 0; }
  int64_t as_int() const { return integer_; }
  double as_double() const {
    return kind_ == Kind::kFloat ? number_ : static_cast<double>(integer_);
  }
  std::string_view text() const { return {chars_, size_}; }
  Object* object() const { return object_; }
  Absence* absence() const; // null: nothing is known about why it is undefined
  Sequence& sequence() const;
  Dict& dict() const; // of a dict or a namespace
  Range& range() const;
  Callable& callable() const;
  Loop& loop() const;
  Cycler& cycler() const;
  Joiner& joiner() const;

 private:
  explicit Value(Kind kind) : kind_(kind), integer_(0) {}

  Kind kind_ = Kind::kUndefined;
  bool safe_ = false;
  union {
    int64_t integer_;
    double number_;
    const char* chars_;
    Object* object_;
  };
  size_t size_ = 0;
};

// Why a value is undefined: `hint`, or the object and the name that was looked up in it.
struct Absence : Object {
  std::string_view hint;
  bool has_owner = false;
  Value owner;
  Value name;
};

// list, tuple, the views of a dict, and generators (filters that Jinja evaluates lazily): those are
// used up by iterating, `next` is what comes first.
struct Sequence : Object {
  enum class Type : uint8_t { kList, kTuple, kGroup, kKeys, kValues, kItems, kGenerator };
  explicit Sequence(Type of) : type(of) {}
  bool is_tuple() const { return type == Type::kTuple || type == Type::kGroup; }
  bool is_indexable() const { return type == Type::kList || is_tuple(); }
  Type type;
  size_t next = 0;
  std::vector<Value> items;
};

// Keeps the order of insertion. Also the attributes of a namespace.
struct Dict : Object {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_map<std::string_view, size_t> index; // of string keys, once there are many entries

  Value* find_text(std::string_view key);
  void append(const Value& key, const Value& value); // the key must be new
  void erase(size_t position);
};

struct Range : Object {
  int64_t start = 0, stop = 0, step = 1;
  int64_t size() const;
  int64_t at(int64_t index) const { return start + index * step; }
};

struct Cycler : Object {
  std::vector<Value> items;
  size_t position = 0;
};

struct Joiner : Object {
  Value separator;
  bool used = false;
};

class Heap {
 public:
  Heap(uint64_t max_steps, uint64_t max_bytes) : steps_left_(max_steps), bytes_left_(max_bytes) {}

  // Counts work done; false once there was too much.
  bool step(uint64_t count = 1) {
    steps_left_ = count < steps_left_ ? steps_left_ - count : 0;
    return steps_left_ > 0;
  }
  // Counts memory; false once there was too much. `has_room` asks before a large allocation.
  bool take(uint64_t bytes) {
    bytes_left_ = bytes < bytes_left_ ? bytes_left_ - bytes : 0;
    return bytes_left_ > 0;
  }
  bool has_room(uint64_t bytes) const { return bytes < bytes_left_; }
  void give_back(uint64_t bytes) { bytes_left_ += bytes; }
  bool exhausted() const { return steps_left_ == 0 || bytes_left_ == 0; }
  bool out_of_steps() const { return steps_left_ == 0; }

  template <class T, class... Args> T* make(Args&&... args) {
    auto owned = std::make_unique<T>(std::forward<Args>(args)...);
    T* out = owned.get();
    objects_.push_back(std::move(owned));
    take(sizeof(T) + sizeof(owned) + 16);
    return out;
  }
  std::string_view keep(std::string text);

 private:
  uint64_t steps_left_;
  uint64_t bytes_left_;
  std::vector<std::unique_ptr<Object>> objects_;
  std::deque<std::string> strings_;
};

const char* type_name(const Value& value); // type(value).__name__
bool is_true(const Value& value);

// A sequence of `type` on the heap.
Value make_sequence(Heap& heap, Sequence::Type type, std::vector<Value> items);

inline Absence* Value::absence() const { return static_cast<Absence*>(object_); }
inline Sequence& Value::sequence() const { return static_cast<Sequence&>(*object_); }
inline Dict& Value::dict() const { return static_cast<Dict&>(*object_); }
inline Range& Value::range() const { return static_cast<Range&>(*object_); }
inline Cycler& Value::cycler() const { return static_cast<Cycler&>(*object_); }
inline Joiner& Value::joiner() const { return static_cast<Joiner&>(*object_); }

} // namespace pinhole::jinja

// JINJA_TRY(auto x, make_x()): PINHOLE_TRY for Outcome.
#define JINJA_TRY(decl, expr) JINJA_TRY_(decl, expr, PINHOLE_CONCAT(outcome_, __LINE__))
#define JINJA_TRY_(decl, expr, tmp)                                                                \
  auto tmp = (expr);                                                                               \
  if (!tmp)                                                                                        \
    return ::pinhole::jinja::failed();                                                             \
  decl = std::move(*tmp)
#define JINJA_CHECK(expr)                                                                          \
  do {                                                                                             \
    if (!(expr))                                                                                   \
      return ::pinhole::jinja::failed();                                                           \
  } while (false)
