#include "text/grammar/schema.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace pinhole::grammar {

namespace {

constexpr int kMaxDepth = 64; // of schemas merged in schemas, of references to references
constexpr size_t kMaxWorkBytes = 16 << 20;

struct Keyword {
  std::string_view name;
  unsigned types; // that it speaks about; 0: all of them
  bool handled;
};

// Those of draft 2020-12 that constrain, and those of older drafts that did.
constexpr Keyword kKeywords[] = {
    {"$ref", 0, true},
    {"allOf", 0, true},
    {"anyOf", 0, true},
    {"oneOf", 0, true},
    {"const", 0, true},
    {"enum", 0, true},
    {"type", 0, true},
    {"minimum", kNumberType, true},
    {"maximum", kNumberType, true},
    {"exclusiveMinimum", kNumberType, true},
    {"exclusiveMaximum", kNumberType, true},
    {"minLength", kStringType, true},
    {"maxLength", kStringType, true},
    {"pattern", kStringType, true},
    {"format", kStringType, true},
    {"items", kArrayType, true},
    {"prefixItems", kArrayType, true},
    {"minItems", kArrayType, true},
    {"maxItems", kArrayType, true},
    {"properties", kObjectType, true},
    {"required", kObjectType, true},
    {"additionalProperties", kObjectType, true},
    {"not", 0, false},
    {"if", 0, false},
    {"then", 0, false},
    {"else", 0, false},
    {"$dynamicRef", 0, false},
    {"$recursiveRef", 0, false},
    {"multipleOf", kNumberType, false},
    {"uniqueItems", kArrayType, false},
    {"contains", kArrayType, false},
    {"minContains", kArrayType, false},
    {"maxContains", kArrayType, false},
    {"unevaluatedItems", kArrayType, false},
    {"additionalItems", kArrayType, false},
    {"minProperties", kObjectType, false},
    {"maxProperties", kObjectType, false},
    {"patternProperties", kObjectType, false},
    {"propertyNames", kObjectType, false},
    {"unevaluatedProperties", kObjectType, false},
    {"dependentRequired", kObjectType, false},
    {"dependentSchemas", kObjectType, false},
    {"dependencies", kObjectType, false},
    {"extends", 0, false},
    {"disallow", 0, false},
};

const Keyword* find_keyword(std::string_view name) {
  const auto* const it = std::find_if(std::begin(kKeywords), std::end(kKeywords),
                                      [&](const Keyword& k) { return k.name == name; });
  return it == std::end(kKeywords) ? nullptr : it;
}

// Values of keywords that constrain nothing.
bool says_nothing(std::string_view name, const Json& value) {
  if (name == "uniqueItems")
    return value == false;
  if (name == "unevaluatedProperties" || name == "unevaluatedItems") // nothing but what is named
    return value.is_boolean();                                       // is written anyway
  if (name == "minProperties" || name == "minContains")
    return value == 0;
  return false;
}

constexpr std::pair<std::string_view, unsigned> kTypeNames[] = {
    {"null", kNullType},     {"boolean", kBooleanType}, {"integer", kIntegerType},
    {"number", kNumberType}, {"string", kStringType},   {"array", kArrayType},
    {"object", kObjectType}};

Result<unsigned> type_named(const Json& name, const std::string& path) {
  for (const auto& [known, bits] : kTypeNames) {
    if (name.is_string() && name.get_ref<const std::string&>() == known)
      return bits;
  }
  return schema_error(path, fmt::format("{} is not a type", shown(name)));
}

Result<unsigned> declared_types(const Json& schema, const std::string& path) {
  const auto type = schema.find("type");
  if (type == schema.end())
    return unsigned{kAnyType};
  const std::string here = pointer_below(path, "type");
  if (!type->is_array())
    return type_named(*type, here);
  unsigned out = 0;
  for (const Json& name : *type) {
    PINHOLE_TRY(const unsigned bits, type_named(name, here));
    out |= bits;
  }
  return out;
}

Json type_names(unsigned types) {
  Json out = Json::array();
  for (const auto& [name, bits] : kTypeNames) {
    const bool covered = bits == kIntegerType && (types & kNumberType) == kNumberType;
    if ((types & bits) == bits && !covered)
      out.push_back(name);
  }
  return out;
}

bool contains(const Json& list, const Json& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// "%25" and "~1" in a step of a pointer.
std::string unescape(std::string_view step) {
  std::string percent;
  for (size_t i = 0; i < step.size(); ++i) {
    const auto digit = [&](size_t at) {
      const char c = at < step.size() ? step[at] : 'x';
      return c >= '0' && c <= '9'   ? c - '0'
             : c >= 'a' && c <= 'f' ? c - 'a' + 10
             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                    : -1;
    };
    if (step[i] == '%' && digit(i + 1) >= 0 && digit(i + 2) >= 0) {
      percent += static_cast<char>(digit(i + 1) * 16 + digit(i + 2));
      i += 2;
    } else {
      percent += step[i];
    }
  }
  std::string out;
  for (size_t i = 0; i < percent.size(); ++i) {
    const char next = i + 1 < percent.size() ? percent[i + 1] : ' ';
    if (percent[i] == '~' && (next == '0' || next == '1')) {
      out += next == '0' ? '~' : '/';
      ++i;
    } else {
      out += percent[i];
    }
  }
  return out;
}

} // namespace

tl::unexpected<Error> schema_error(const std::string& path, std::string message, ErrorCode code) {
  return fail(code, std::move(message), "schema, " + path);
}

std::string pointer_below(const std::string& path, std::string_view name) {
  std::string out = path + "/";
  for (const char c : name) {
    if (c == '~')
      out += "~0";
    else if (c == '/')
      out += "~1";
    else
      out += c;
  }
  return out;
}

std::string shown(const Json& value) {
  constexpr size_t kMaxBytes = 60;
  std::string out = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (out.size() > kMaxBytes)
    out = out.substr(0, kMaxBytes) + "...";
  return out;
}

Status Schemas::check(const Json& schema, const std::string& path) {
  if (schema.is_boolean())
    return {};
  if (!schema.is_object()) {
    return schema_error(path,
                        fmt::format("{} is not a schema: an object, true or false", shown(schema)));
  }
  for (const auto& [name, value] : schema.items()) {
    const Keyword* keyword = find_keyword(name);
    if (keyword != nullptr && !keyword->handled && !says_nothing(name, value)) {
      return schema_error(path, fmt::format("the keyword '{}' is not supported", name),
                          ErrorCode::kUnsupported);
    }
  }
  return {};
}

bool Schemas::constrains(const Json& schema, std::initializer_list<std::string_view> without) {
  if (!schema.is_object())
    return schema == false;
  for (const auto& [name, value] : schema.items()) {
    const bool left_out = std::find(without.begin(), without.end(), name) != without.end();
    if (find_keyword(name) != nullptr && !left_out && !says_nothing(name, value))
      return true;
  }
  return false;
}

Json Schemas::without(const Json& schema, std::string_view keyword) {
  Json out = Json::object();
  for (const auto& [name, value] : schema.items()) {
    if (name != keyword && name != "$defs" && name != "definitions")
      out[name] = value;
  }
  return out;
}

Result<const Json*> Schemas::resolve(const Json& ref, const std::string& path) const {
  const std::string here = pointer_below(path, "$ref");
  if (!ref.is_string())
    return schema_error(here, fmt::format("{} is not a reference", shown(ref)));
  const std::string& text = ref.get_ref<const std::string&>();
  if (!text.starts_with('#') || (text.size() > 1 && text[1] != '/')) {
    return schema_error(here,
                        fmt::format("{} is not supported: references must be pointers into the "
                                    "schema, such as #/$defs/name",
                                    shown(ref)),
                        ErrorCode::kUnsupported);
  }
  const Json* at = &root_;
  for (size_t begin = 1; begin < text.size();) {
    const size_t end = std::min(text.find('/', begin + 1), text.size());
    const std::string step = unescape(std::string_view(text).substr(begin + 1, end - begin - 1));
    begin = end;
    const Json* next = nullptr;
    if (at->is_object()) {
      if (const auto it = at->find(step); it != at->end())
        next = &*it;
    } else if (at->is_array() && !step.empty() && step.size() < 9 &&
               step.find_first_not_of("0123456789") == std::string::npos) {
      const size_t index = std::stoul(step);
      next = index < at->size() ? &(*at)[index] : nullptr;
    }
    if (next == nullptr)
      return schema_error(here, fmt::format("{} points at nothing", shown(ref)));
    at = next;
  }
  return at;
}

Status Schemas::charge(const Json& schema, const std::string& path) const {
  work_bytes_ += schema.dump(-1, ' ', false, Json::error_handler_t::replace).size() + 64;
  if (work_bytes_ <= kMaxWorkBytes)
    return {};
  return schema_error(path, "the schemas that must hold together are too large",
                      ErrorCode::kTooLarge);
}

Result<Json> Schemas::expand(const Json& schema, const std::string& path, int depth) const {
  if (depth > kMaxDepth) {
    return schema_error(path, fmt::format("more than {} schemas within each other", kMaxDepth),
                        ErrorCode::kTooLarge);
  }
  PINHOLE_CHECK(check(schema, path));
  if (!schema.is_object())
    return schema;
  if (const auto ref = schema.find("$ref"); ref != schema.end()) {
    PINHOLE_TRY(const Json* target, resolve(*ref, path));
    if (!constrains(schema, {"$ref"}))
      return expand(*target, path, depth + 1);
    return merge(without(schema, "$ref"), *target, path, depth + 1);
  }
  if (const auto all = schema.find("allOf"); all != schema.end()) {
    if (!all->is_array() || all->empty())
      return schema_error(path, "'allOf' must be a list of schemas");
    Json out = without(schema, "allOf");
    for (const Json& part : *all) {
      PINHOLE_TRY(out, merge(out, part, path, depth + 1));
    }
    return expand(out, path, depth + 1); // a part may have been taken as it is
  }
  return schema;
}

Result<Json> Schemas::merge(const Json& a, const Json& b, const std::string& path,
                            int depth) const {
  PINHOLE_CHECK(check(a, path));
  PINHOLE_CHECK(check(b, path));
  if (!constrains(b))
    return a;
  if (!constrains(a))
    return b;
  PINHOLE_TRY(Json left, expand(a, path, depth));
  PINHOLE_TRY(Json right, expand(b, path, depth));
  PINHOLE_CHECK(charge(left, path));
  PINHOLE_CHECK(charge(right, path));
  if (left == true || right == false)
    return right;
  if (right == true || left == false)
    return left;
  for (Json* side : {&left, &right}) { // a const is an enum of one
    if (const auto it = side->find("const"); it != side->end()) {
      const Json value = *it;
      if (const auto list = side->find("enum"); list != side->end() && !contains(*list, value))
        return Json(false);
      *side = without(*side, "const");
      (*side)["enum"] = Json::array({value});
    }
  }
  PINHOLE_CHECK(merge_properties(left, right, path, depth));
  for (const auto& [name, value] : right.items()) {
    const Keyword* keyword = find_keyword(name);
    if (keyword == nullptr || name == "properties" || name == "additionalProperties")
      continue;
    PINHOLE_CHECK(merge_keyword(left, name, value, path, depth));
  }
  return left;
}

// Each member must satisfy what either side says about it: `properties`, or where that does not
// name it `additionalProperties`.
Status Schemas::merge_properties(Json& out, const Json& b, const std::string& path,
                                 int depth) const {
  const Json none = Json::object();
  const auto member = [&](const Json& schema, const char* key) -> const Json& {
    const auto it = schema.find(key);
    return it == schema.end() ? none : *it;
  };
  const Json a_properties = member(out, "properties"),
             a_others = member(out, "additionalProperties");
  const Json& b_properties = member(b, "properties");
  const Json& b_others = member(b, "additionalProperties");
  for (const Json* side : std::initializer_list<const Json*>{&a_properties, &b_properties}) {
    if (!side->is_object())
      return schema_error(path,
                          fmt::format("'properties' is {}, expected an object", shown(*side)));
  }
  Json merged = Json::object();
  for (const auto& [name, schema] : a_properties.items()) {
    const auto it = b_properties.find(name);
    PINHOLE_TRY(merged[name], merge(schema, it == b_properties.end() ? b_others : *it,
                                    pointer_below(path, name), depth + 1));
  }
  for (const auto& [name, schema] : b_properties.items()) {
    if (a_properties.contains(name))
      continue;
    PINHOLE_TRY(merged[name], merge(schema, a_others, pointer_below(path, name), depth + 1));
  }
  if (!merged.empty())
    out["properties"] = std::move(merged);
  if (out.contains("additionalProperties") || b.contains("additionalProperties")) {
    PINHOLE_TRY(out["additionalProperties"], merge(a_others, b_others, path, depth + 1));
  }
  return {};
}

Status Schemas::merge_keyword(Json& out, const std::string& key, const Json& value,
                              const std::string& path, int depth) const {
  const auto it = out.find(key);
  if (it == out.end()) {
    out[key] = value;
    return {};
  }
  if (*it == value)
    return {};
  const bool numbers = it->is_number() && value.is_number();
  const bool lists = it->is_array() && value.is_array();
  if (numbers && (key.starts_with("min") || key == "exclusiveMinimum")) {
    *it = std::max(*it, value);
  } else if (numbers && (key.starts_with("max") || key == "exclusiveMaximum")) {
    *it = std::min(*it, value);
  } else if (key == "type") {
    PINHOLE_TRY(const unsigned a, declared_types(out, path));
    PINHOLE_TRY(const unsigned b, declared_types(Json{{"type", value}}, path));
    *it = type_names(a & b);
  } else if (key == "enum" && lists) {
    Json both = Json::array();
    for (const Json& one : *it) {
      if (contains(value, one))
        both.push_back(one);
    }
    *it = std::move(both);
  } else if (key == "required" && lists) {
    for (const Json& one : value) {
      if (!contains(*it, one))
        it->push_back(one);
    }
  } else if (key == "items") {
    PINHOLE_TRY(*it, merge(Json(*it), value, pointer_below(path, key), depth + 1));
  } else {
    return schema_error(path,
                        fmt::format("'{}' of several schemas that must all hold: {} and {}", key,
                                    shown(*it), shown(value)),
                        ErrorCode::kUnsupported);
  }
  return {};
}

unsigned Schemas::type_of(const Json& value) {
  switch (value.type()) {
  case Json::value_t::null:
    return kNullType;
  case Json::value_t::boolean:
    return kBooleanType;
  case Json::value_t::number_integer:
  case Json::value_t::number_unsigned:
    return kIntegerType;
  case Json::value_t::number_float:
    return 8; // a number that is no integer
  case Json::value_t::string:
    return kStringType;
  case Json::value_t::array:
    return kArrayType;
  default:
    return kObjectType;
  }
}

Result<std::optional<std::vector<Json>>> Schemas::values(const Json& schema,
                                                         const std::string& path) {
  std::optional<std::vector<Json>> out;
  PINHOLE_TRY(const unsigned types, declared_types(schema, path));
  const auto one = schema.find("const"), list = schema.find("enum");
  if (list != schema.end()) {
    if (!list->is_array())
      return schema_error(path, fmt::format("'enum' is {}, expected a list", shown(*list)));
    out.emplace();
    for (const Json& value : *list) {
      if ((type_of(value) & types) != 0 && (one == schema.end() || *one == value))
        out->push_back(value);
    }
  } else if (one != schema.end()) {
    out.emplace();
    if ((type_of(*one) & types) != 0)
      out->push_back(*one);
  }
  return out;
}

Result<unsigned> Schemas::types(const Json& schema, const std::string& path) {
  if (!schema.is_object())
    return schema == true ? unsigned{kAnyType} : 0u;
  PINHOLE_TRY(const auto listed, values(schema, path));
  if (listed) {
    unsigned out = 0;
    for (const Json& value : *listed)
      out |= type_of(value);
    return out;
  }
  if (schema.contains("type"))
    return declared_types(schema, path);
  unsigned out = 0;
  for (const auto& [name, value] : schema.items()) {
    if (const Keyword* keyword = find_keyword(name))
      out |= keyword->types;
  }
  return out == 0 ? unsigned{kAnyType} : out;
}

Result<bool> Schemas::disjoint(const Json& a_given, const Json& b_given,
                               const std::string& path) const {
  PINHOLE_TRY(const Json a, expand(a_given, path, 0));
  PINHOLE_TRY(const Json b, expand(b_given, path, 0));
  if (a == false || b == false)
    return true;
  if (!a.is_object() || !b.is_object())
    return false;
  PINHOLE_TRY(const unsigned a_types, types(a, path));
  PINHOLE_TRY(const unsigned b_types, types(b, path));
  // What may be written for a schema is of its types; what is valid for it, if its types are not
  // declared, may be of any.
  const bool declared = (a.contains("type") || a.contains("enum") || a.contains("const")) &&
                        (b.contains("type") || b.contains("enum") || b.contains("const"));
  if (declared && (a_types & b_types) == 0)
    return true;
  PINHOLE_TRY(const auto a_values, values(a, path));
  PINHOLE_TRY(const auto b_values, values(b, path));
  const auto apart = [](const std::vector<Json>& x, const std::vector<Json>& y) {
    return std::none_of(x.begin(), x.end(), [&](const Json& value) {
      return std::find(y.begin(), y.end(), value) != y.end();
    });
  };
  if (a_values && b_values)
    return apart(*a_values, *b_values);
  if (!declared || (a_types & b_types) != kObjectType)
    return false;
  const auto requires_member = [](const Json& schema, const std::string& name) {
    const Json* required = json_find(schema, "required");
    return required != nullptr && required->is_array() && contains(*required, name);
  };
  const auto properties = [](const Json& schema) {
    const Json* found = json_find(schema, "properties");
    return found != nullptr && found->is_object() ? *found : Json::object();
  };
  const Json a_members = properties(a), b_members = properties(b);
  bool a_lacks = false, b_lacks = false; // a member that the other one requires
  for (const auto& [name, schema] : a_members.items()) {
    const auto other = b_members.find(name);
    if (other == b_members.end()) {
      b_lacks = b_lacks || (requires_member(a, name) && !b_members.empty());
      continue;
    }
    if (!requires_member(a, name) || !requires_member(b, name) || !schema.is_object() ||
        !other->is_object())
      continue;
    PINHOLE_TRY(const auto x, values(schema, path));
    PINHOLE_TRY(const auto y, values(*other, path));
    if (x && y && apart(*x, *y))
      return true;
  }
  for (const auto& [name, schema] : b_members.items())
    a_lacks =
        a_lacks || (requires_member(b, name) && !a_members.empty() && !a_members.contains(name));
  return a_lacks && b_lacks;
}

} // namespace pinhole::grammar
