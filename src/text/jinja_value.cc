#include "text/jinja_value.h"

namespace pinhole::jinja {

namespace {

constexpr size_t kIndexFrom = 12; // entries of a dict from which look-ups use the index

} // namespace

Value* Dict::find_text(std::string_view key) {
  if (!index.empty()) {
    const auto it = index.find(key);
    return it == index.end() ? nullptr : &entries[it->second].second;
  }
  for (auto& [name, value] : entries) {
    if (name.is_string() && name.text() == key)
      return &value;
  }
  return nullptr;
}

void Dict::append(const Value& key, const Value& value) {
  entries.emplace_back(key, value);
  if (entries.size() == kIndexFrom) {
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].first.is_string())
        index.emplace(entries[i].first.text(), i);
    }
  } else if (entries.size() > kIndexFrom && key.is_string()) {
    index.emplace(key.text(), entries.size() - 1);
  }
}

void Dict::erase(size_t position) {
  entries.erase(entries.begin() + static_cast<ptrdiff_t>(position));
  index.clear();
  if (entries.size() < kIndexFrom)
    return;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].first.is_string())
      index.emplace(entries[i].first.text(), i);
  }
}

int64_t Range::size() const {
  if (step > 0)
    return stop > start ? (stop - start - 1) / step + 1 : 0;
  return stop < start ? (start - stop - 1) / -step + 1 : 0;
}

std::string_view Heap::keep(std::string text) {
  take(text.size() + 32);
  return strings_.emplace_back(std::move(text));
}

const char* type_name(const Value& value) {
  switch (value.kind()) {
  case Kind::kUndefined:
    return "Undefined";
  case Kind::kNone:
    return "NoneType";
  case Kind::kBool:
    return "bool";
  case Kind::kInt:
    return "int";
  case Kind::kFloat:
    return "float";
  case Kind::kString:
    return value.is_safe() ? "Markup" : "str";
  case Kind::kSequence:
    switch (value.sequence().type) {
    case Sequence::Type::kList:
      return "list";
    case Sequence::Type::kTuple:
      return "tuple";
    case Sequence::Type::kGroup:
      return "_GroupTuple";
    case Sequence::Type::kKeys:
      return "dict_keys";
    case Sequence::Type::kValues:
      return "dict_values";
    case Sequence::Type::kItems:
      return "dict_items";
    case Sequence::Type::kGenerator:
      return "generator";
    }
    return "list";
  case Kind::kDict:
    return "dict";
  case Kind::kNamespace:
    return "Namespace";
  case Kind::kRange:
    return "range";
  case Kind::kCallable:
    return "function";
  case Kind::kLoop:
    return "LoopContext";
  case Kind::kCycler:
    return "Cycler";
  case Kind::kJoiner:
    return "Joiner";
  }
  return "object";
}

bool is_true(const Value& value) {
  switch (value.kind()) {
  case Kind::kUndefined:
  case Kind::kNone:
    return false;
  case Kind::kBool:
  case Kind::kInt:
    return value.as_int() != 0;
  case Kind::kFloat:
    return value.as_double() != 0;
  case Kind::kString:
    return !value.text().empty();
  case Kind::kSequence:
    return value.sequence().type == Sequence::Type::kGenerator || !value.sequence().items.empty();
  case Kind::kDict:
    return !value.dict().entries.empty();
  case Kind::kRange:
    return value.range().size() > 0;
  default:
    return true;
  }
}

Value make_sequence(Heap& heap, Sequence::Type type, std::vector<Value> items) {
  auto* sequence = heap.make<Sequence>(type);
  sequence->items = std::move(items);
  heap.take(sequence->items.size() * sizeof(Value));
  return Value::object(Kind::kSequence, sequence);
}

} // namespace pinhole::jinja
