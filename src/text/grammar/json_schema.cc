// JSON Schema to grammar: every schema becomes a rule that writes a value which it accepts, the
// same schema the same rule; that is how references may be recursive.
//
// Sources: JSON Schema draft 2020-12 (Core and Validation), RFC 8259 for JSON, RFC 3339 for dates
// and times. Numbers are in number_range.h, strings with a pattern in pattern.h.
#include "text/grammar/code_points.h"
#include "text/grammar/grammar.h"
#include "text/grammar/number_range.h"
#include "text/grammar/pattern.h"
#include "text/grammar/schema.h"

#include <algorithm>
#include <fmt/format.h>
#include <unordered_map>

namespace pinhole {

namespace grammar {

namespace {

constexpr int kMaxSchemaDepth = 160;
constexpr size_t kMaxKeyBytes = 64 << 20; // of schemas compared with those that have a rule

// Of strings; the leap days of the Gregorian calendar included.
#define PINHOLE_DATE                                                                               \
  "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"                                  \
  "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|"                            \
  "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
#define PINHOLE_TIME                                                                               \
  "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?"                                   \
  "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
#define PINHOLE_OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define PINHOLE_LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

struct Format {
  std::string_view name;
  const char* pattern;
};
constexpr Format kFormats[] = {
    {"date", PINHOLE_DATE},
    {"time", PINHOLE_TIME},
    {"date-time", PINHOLE_DATE "T" PINHOLE_TIME},
    {"uuid", "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"},
    {"ipv4", "(?:" PINHOLE_OCTET "\\.){3}" PINHOLE_OCTET},
    {"email", "[A-Za-z0-9_+-]+(?:\\.[A-Za-z0-9_+-]+)*@" PINHOLE_LABEL "(?:\\." PINHOLE_LABEL ")+"},
};
#undef PINHOLE_DATE
#undef PINHOLE_TIME
#undef PINHOLE_OCTET
#undef PINHOLE_LABEL

const char* const kNumber = "-?(?:0|[1-9][0-9]{0,14})(?:\\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?";

class SchemaCompiler {
 public:
  explicit SchemaCompiler(const Json& root) : schemas_(root), code_points_(builder_) {}

  Result<std::shared_ptr<const Program>> compile(const Json& root) {
    PINHOLE_TRY(const RuleId rule, rule_of(root, "#"));
    auto program = builder_.finish(rule);
    if (!program)
      return fail_in("schema", program.error());
    return program;
  }

 private:
  Result<RuleId> rule_of(const Json& schema, const std::string& path) {
    std::string key = schema.dump(-1, ' ', false, Json::error_handler_t::replace);
    key_bytes_ += key.size();
    if (++depth_ > kMaxSchemaDepth || key_bytes_ > kMaxKeyBytes) {
      return schema_error(path, "the schema is too deep, or refers to itself in too many ways",
                          ErrorCode::kTooLarge);
    }
    const auto [it, is_new] = rules_.try_emplace(std::move(key), 0);
    const RuleId rule = is_new ? it->second = builder_.add_rule() : it->second;
    if (is_new) {
      PINHOLE_TRY(const NodeId start, value(schema, path));
      builder_.define(rule, start);
    }
    --depth_;
    return rule;
  }

  // Nodes of the schemas' own rules all end the rule.
  Result<NodeId> value(const Json& schema, const std::string& path) {
    PINHOLE_CHECK(Schemas::check(schema, path));
    if (schema.is_boolean()) {
      if (schema == true)
        return typed(Json::object(), path);
      return kFailNode;
    }
    if (const auto ref = schema.find("$ref"); ref != schema.end()) {
      PINHOLE_TRY(const Json* target, schemas_.resolve(*ref, path));
      if (!Schemas::constrains(schema, {"$ref"}))
        return rule_call(*target, ref->get<std::string>());
      PINHOLE_TRY(const Json merged,
                  schemas_.merge(Schemas::without(schema, "$ref"), *target, path));
      return rule_call(merged, path);
    }
    if (schema.contains("allOf")) {
      PINHOLE_TRY(const Json merged, schemas_.expand(schema, path));
      return rule_call(merged, path);
    }
    for (const char* keyword : {"anyOf", "oneOf"}) {
      if (schema.contains(keyword))
        return alternatives(schema, keyword, path);
    }
    return typed(schema, path);
  }

  Result<NodeId> rule_call(const Json& schema, const std::string& path) {
    PINHOLE_TRY(const RuleId rule, rule_of(schema, path));
    return builder_.call(rule, kEndNode);
  }

  Result<NodeId> alternatives(const Json& schema, const std::string& keyword,
                              const std::string& path) {
    const std::string here = pointer_below(path, keyword);
    const Json& list = schema.at(keyword);
    if (!list.is_array() || list.empty())
      return schema_error(here, fmt::format("{} is not a list of schemas", shown(list)));
    const Json base = Schemas::without(schema, keyword);
    std::vector<Json> merged;
    for (size_t i = 0; i < list.size(); ++i) {
      PINHOLE_TRY(Json one, schemas_.merge(base, list[i], fmt::format("{}/{}", here, i)));
      merged.push_back(std::move(one));
    }
    if (keyword == "oneOf")
      PINHOLE_CHECK(check_one_of(merged, here));
    NodeId out = kFailNode;
    for (size_t i = merged.size(); i-- > 0;) {
      PINHOLE_TRY(const NodeId one, rule_call(merged[i], fmt::format("{}/{}", here, i)));
      out = builder_.either(one, out);
    }
    return out;
  }

  Status check_one_of(const std::vector<Json>& alternatives, const std::string& here) {
    constexpr size_t kMaxCompared = 256;
    if (alternatives.size() > kMaxCompared) {
      return schema_error(here, fmt::format("more than {} alternatives", kMaxCompared),
                          ErrorCode::kTooLarge);
    }
    for (size_t b = 1; b < alternatives.size(); ++b) {
      for (size_t a = 0; a < b; ++a) {
        PINHOLE_TRY(const bool disjoint, schemas_.disjoint(alternatives[a], alternatives[b], here));
        if (!disjoint) {
          return schema_error(here,
                              fmt::format("alternatives {} and {} may both hold; use anyOf, or "
                                          "give them different types or constants",
                                          a, b),
                              ErrorCode::kUnsupported);
        }
      }
    }
    return {};
  }

  // Neither references nor alternatives are left.
  Result<NodeId> typed(const Json& schema, const std::string& path) {
    PINHOLE_TRY(const auto values, Schemas::values(schema, path));
    if (values) {
      for (const auto& [name, value] : schema.items()) {
        const bool constrains = name != "enum" && name != "const" && name != "type" &&
                                Schemas::constrains(Json{{name, value}});
        if (constrains) {
          return schema_error(path, fmt::format("'{}' beside 'enum' or 'const'", name),
                              ErrorCode::kUnsupported);
        }
      }
      std::vector<std::string> texts;
      for (const Json& one : *values)
        texts.push_back(one.dump(-1, ' ', false, Json::error_handler_t::replace));
      return builder_.literals(std::move(texts), kEndNode);
    }
    PINHOLE_TRY(const unsigned types, Schemas::types(schema, path));
    NodeId out = kFailNode;
    const auto add = [&](NodeId node) { out = builder_.either(node, out); };
    if ((types & kNullType) != 0)
      add(builder_.literal("null", kEndNode));
    if ((types & kBooleanType) != 0)
      add(builder_.literals({"true", "false"}, kEndNode));
    if ((types & kIntegerType) != 0) {
      PINHOLE_TRY(const NodeId node, number(schema, (types & kNumberType) != kNumberType, path));
      add(node);
    }
    if ((types & kStringType) != 0) {
      PINHOLE_TRY(const NodeId node, string(schema, path));
      add(node);
    }
    if ((types & kArrayType) != 0) {
      PINHOLE_TRY(const NodeId node, array(schema, path));
      add(node);
    }
    if ((types & kObjectType) != 0) {
      PINHOLE_TRY(const NodeId node, object(schema, path));
      add(node);
    }
    return out;
  }

  Status read_bound(const Json& schema, const char* key, bool exclusive, bool is_min, bool integer,
                    std::optional<NumberBound>& bound, const std::string& path) {
    const auto it = schema.find(key);
    if (it == schema.end())
      return {};
    const std::string here = pointer_below(path, key);
    const auto decimal = Decimal::from_json(*it);
    if (!decimal)
      return schema_error(here, fmt::format("{} is not a number of usual size", shown(*it)));
    if (!integer && decimal->significant_digits() > kNumberDigits) {
      return schema_error(here,
                          fmt::format("{} has more than {} digits", shown(*it), kNumberDigits),
                          ErrorCode::kUnsupported);
    }
    const NumberBound given{*decimal, exclusive};
    if (bound) {
      const int order = Decimal::compare(given.value, bound->value);
      if (order == 0 ? !exclusive : (order > 0) != is_min)
        return {};
    }
    bound = given;
    return {};
  }

  Result<NodeId> number(const Json& schema, bool integer, const std::string& path) {
    std::optional<NumberBound> min, max;
    PINHOLE_CHECK(read_bound(schema, "minimum", false, true, integer, min, path));
    PINHOLE_CHECK(read_bound(schema, "exclusiveMinimum", true, true, integer, min, path));
    PINHOLE_CHECK(read_bound(schema, "maximum", false, false, integer, max, path));
    PINHOLE_CHECK(read_bound(schema, "exclusiveMaximum", true, false, integer, max, path));
    if (integer || min || max)
      return number_nodes(min, max, integer, builder_, kEndNode);
    return pattern_nodes(kNumber, PatternUse::kWhole, Spelling::kText, {}, builder_, code_points_,
                         kEndNode);
  }

  // A maximum past the limit is lowered to it: that writes less than is allowed.
  Result<LengthLimit> length_limit(const Json& schema, const char* min_key, const char* max_key,
                                   const std::string& path) {
    LengthLimit out;
    const std::pair<const char*, int64_t*> targets[] = {{min_key, &out.min}, {max_key, &out.max}};
    for (const auto& [key, value] : targets) {
      const auto it = schema.find(key);
      if (it == schema.end())
        continue;
      const auto decimal = Decimal::from_json(*it);
      if (!decimal || decimal->negative || !decimal->fraction.empty()) {
        return schema_error(pointer_below(path, key), fmt::format("{} is not a count", shown(*it)));
      }
      *value = decimal->integer.size() > 9 ? Grammar::kMaxRepeat + 1 : std::stoll(decimal->integer);
    }
    if (out.min > Grammar::kMaxRepeat) {
      return schema_error(pointer_below(path, min_key),
                          fmt::format("more than {}", Grammar::kMaxRepeat), ErrorCode::kTooLarge);
    }
    out.max = std::min(out.max, Grammar::kMaxRepeat);
    return out;
  }

  Result<NodeId> string(const Json& schema, const std::string& path) {
    PINHOLE_TRY(const LengthLimit limit, length_limit(schema, "minLength", "maxLength", path));
    const NodeId end = builder_.byte('"', kEndNode);
    const auto pattern = schema.find("pattern"), format = schema.find("format");
    if (pattern != schema.end() && format != schema.end())
      return schema_error(path, "'pattern' beside 'format'", ErrorCode::kUnsupported);
    if (pattern == schema.end() && format == schema.end()) {
      const NodeId text = limit.max >= 0 && limit.min > limit.max
                              ? kFailNode
                              : builder_.repeat(character(), limit.min, limit.max, end);
      return builder_.byte('"', text);
    }
    std::string source;
    if (pattern != schema.end()) {
      if (!pattern->is_string()) {
        return schema_error(pointer_below(path, "pattern"),
                            fmt::format("{} is not a string", shown(*pattern)));
      }
      source = pattern->get<std::string>();
    } else {
      for (const Format& known : kFormats) {
        if (format->is_string() && format->get_ref<const std::string&>() == known.name)
          source = known.pattern;
      }
      if (source.empty()) {
        return schema_error(pointer_below(path, "format"),
                            fmt::format("the format {} is not supported", shown(*format)),
                            ErrorCode::kUnsupported);
      }
    }
    auto text =
        pattern_nodes(source, pattern != schema.end() ? PatternUse::kSearch : PatternUse::kWhole,
                      Spelling::kJsonString, limit, builder_, code_points_, end);
    if (!text)
      return fail_in("schema, " + pointer_below(path, "pattern"), text.error());
    return builder_.byte('"', *text);
  }

  // A character of a string, in any spelling that JSON has for it.
  RuleId character() {
    if (character_)
      return *character_;
    character_ = builder_.add_rule();
    CodePointSet plain;
    plain.add(0x20, '"' - 1);
    plain.add('"' + 1, '\\' - 1);
    plain.add('\\' + 1, CodePointSet::kLast);
    plain.normalise();
    const auto set = [](std::string_view members) {
      ByteSet out;
      for (const char c : members)
        out.set(static_cast<uint8_t>(c));
      return out;
    };
    const ByteSet hex = set("0123456789abcdefABCDEF");
    const NodeId two = builder_.bytes(hex, builder_.bytes(hex, kEndNode));
    const NodeId low =
        builder_.literal("\\u", builder_.bytes(set("dD"), builder_.bytes(set("cdefCDEF"), two)));
    const NodeId high =
        builder_.bytes(set("89abAB"), builder_.bytes(hex, builder_.bytes(hex, low)));
    const NodeId surrogates =
        builder_.bytes(set("dD"), builder_.either(builder_.bytes(set("01234567"), two), high));
    const NodeId code = builder_.either(
        builder_.bytes(set("0123456789abcefABCEF"), builder_.bytes(hex, two)), surrogates);
    const NodeId escape =
        builder_.either(builder_.bytes(set("\"\\/bfnrt"), kEndNode), builder_.byte('u', code));
    builder_.define(*character_,
                    builder_.either(code_points_.one_of(plain, Spelling::kText, kEndNode),
                                    builder_.byte('\\', escape)));
    return *character_;
  }

  // ',' or ':' and at most one space.
  NodeId separator(char c, NodeId next) {
    return builder_.byte(static_cast<uint8_t>(c), builder_.either(builder_.byte(' ', next), next));
  }

  Result<NodeId> array(const Json& schema, const std::string& path) {
    PINHOLE_TRY(LengthLimit limit, length_limit(schema, "minItems", "maxItems", path));
    std::vector<RuleId> first;
    if (const auto prefix = schema.find("prefixItems"); prefix != schema.end()) {
      const std::string here = pointer_below(path, "prefixItems");
      if (!prefix->is_array())
        return schema_error(here, fmt::format("{} is not a list of schemas", shown(*prefix)));
      for (size_t i = 0; i < prefix->size(); ++i) {
        PINHOLE_TRY(const RuleId rule, rule_of((*prefix)[i], fmt::format("{}/{}", here, i)));
        first.push_back(rule);
      }
    }
    const auto items = schema.find("items");
    const auto num_first = static_cast<int64_t>(first.size());
    if (items != schema.end() && *items == false && (limit.max < 0 || limit.max > num_first))
      limit.max = num_first;
    if (items != schema.end() && items->is_array()) {
      return schema_error(pointer_below(path, "items"),
                          "a list of schemas is 'prefixItems' since draft 2020-12",
                          ErrorCode::kUnsupported);
    }
    if (limit.max >= 0 && limit.min > limit.max)
      return kFailNode;
    PINHOLE_TRY(const RuleId other,
                rule_of(items == schema.end() ? Json(true) : *items, pointer_below(path, "items")));
    // From the end: what may follow when `count` items are written.
    const NodeId close = builder_.byte(']', kEndNode);
    const auto rule_at = [&](int64_t i) {
      return i < num_first ? first[static_cast<size_t>(i)] : other;
    };
    int64_t count = limit.max;
    NodeId more = close;
    if (limit.max < 0) {
      count = std::max<int64_t>({limit.min, num_first, 1});
      const NodeId loop = builder_.forward();
      builder_.resolve(loop, separator(',', builder_.call(other, loop)), close);
      more = loop;
    }
    for (; count > 0 && !builder_.full(); --count) {
      more = builder_.call(rule_at(count - 1), more);
      if (count > 1)
        more = separator(',', more);
      if (limit.min < count)
        more = builder_.either(more, close);
    }
    return builder_.byte('[', more);
  }

  struct Member {
    std::string name;
    RuleId value;
    bool required;
  };

  Result<std::vector<Member>> members(const Json& schema, const std::string& path) {
    std::vector<Member> out;
    const auto properties = schema.find("properties"), required = schema.find("required");
    if (properties != schema.end()) {
      const std::string here = pointer_below(path, "properties");
      if (!properties->is_object())
        return schema_error(here, fmt::format("{} is not an object", shown(*properties)));
      for (const auto& [name, value] : properties->items()) {
        PINHOLE_TRY(const RuleId rule, rule_of(value, pointer_below(here, name)));
        out.push_back({name, rule, false});
      }
    }
    if (required == schema.end())
      return out;
    const std::string here = pointer_below(path, "required");
    if (!required->is_array())
      return schema_error(here, fmt::format("{} is not a list of names", shown(*required)));
    std::unordered_map<std::string, size_t> index;
    for (size_t i = 0; i < out.size(); ++i)
      index.emplace(out[i].name, i);
    const auto others = schema.find("additionalProperties");
    for (const Json& name : *required) {
      if (!name.is_string())
        return schema_error(here, fmt::format("{} is not a name", shown(name)));
      const auto [it, is_new] = index.try_emplace(name.get<std::string>(), out.size());
      if (is_new) {
        PINHOLE_TRY(const RuleId rule, rule_of(others == schema.end() ? Json(true) : *others,
                                               pointer_below(path, "additionalProperties")));
        out.push_back({name.get<std::string>(), rule, false});
      }
      out[it->second].required = true;
    }
    return out;
  }

  Result<NodeId> object(const Json& schema, const std::string& path) {
    PINHOLE_TRY(const std::vector<Member> list, members(schema, path));
    const NodeId close = builder_.byte('}', kEndNode);
    const auto others = schema.find("additionalProperties");
    const bool open = others == schema.end() ? !schema.contains("properties") : *others != false;
    if (list.empty() && open)
      return map(schema, close, path);
    // From the end: `rest` when members stand before it, `first` when none does.
    NodeId first = close, rest = close;
    for (size_t i = list.size(); i-- > 0 && !builder_.full();) {
      const Member& member = list[i];
      const std::string name =
          Json(member.name).dump(-1, ' ', false, Json::error_handler_t::replace);
      const NodeId written =
          builder_.literal(name, separator(':', builder_.call(member.value, rest)));
      const NodeId behind = separator(',', written);
      first = member.required ? written : builder_.either(written, first);
      rest = member.required ? behind : builder_.either(behind, rest);
    }
    return builder_.byte('{', first);
  }

  // Any members whose values satisfy additionalProperties.
  Result<NodeId> map(const Json& schema, NodeId close, const std::string& path) {
    const auto others = schema.find("additionalProperties");
    PINHOLE_TRY(const RuleId rule, rule_of(others == schema.end() ? Json(true) : *others,
                                           pointer_below(path, "additionalProperties")));
    const NodeId loop = builder_.forward();
    const NodeId text = builder_.repeat(
        character(), 0, -1, builder_.byte('"', separator(':', builder_.call(rule, loop))));
    const NodeId member = builder_.byte('"', text);
    builder_.resolve(loop, separator(',', member), close);
    return builder_.byte('{', builder_.either(member, close));
  }

  Schemas schemas_;
  Builder builder_;
  CodePointNodes code_points_;
  std::unordered_map<std::string, RuleId> rules_;
  std::optional<RuleId> character_;
  int depth_ = 0;
  size_t key_bytes_ = 0;
};

} // namespace

} // namespace grammar

Result<Grammar> Grammar::from_json_schema(const Json& schema) {
  const size_t bytes = schema.dump(-1, ' ', false, Json::error_handler_t::replace).size();
  if (bytes > kMaxSourceBytes) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the schema has {} bytes, at most {}", bytes, kMaxSourceBytes));
  }
  PINHOLE_TRY(auto program, grammar::SchemaCompiler(schema).compile(schema));
  return Grammar(std::move(program));
}

Result<Grammar> Grammar::from_json_object() { return from_json_schema(Json{{"type", "object"}}); }

} // namespace pinhole
