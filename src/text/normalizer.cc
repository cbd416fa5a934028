#include "text/normalizer.h"

#include "text/utf8.h"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <utf8proc.h>

namespace pinhole {

namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxSteps = 64;
// Bounds how much a text can grow by a Replace or a Prepend of a file.
constexpr size_t kMaxReplacementBytes = 64;
// Runs of combining marks longer than this are sorted before utf8proc sees them: it takes time
// quadratic in their length.
constexpr size_t kLongRun = 32;

int combining_class(uint32_t code_point) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(code_point))->combining_class;
}

// Orders long runs of combining marks by their class, as canonical ordering would.
std::string sort_marks(std::string_view text) {
  struct Mark {
    int combining;
    std::string_view bytes;
  };
  std::string out;
  out.reserve(text.size());
  std::vector<Mark> run;
  const auto flush = [&] {
    if (run.size() > kLongRun) {
      std::stable_sort(run.begin(), run.end(),
                       [](const Mark& a, const Mark& b) { return a.combining < b.combining; });
    }
    for (const Mark& mark : run)
      out += mark.bytes;
    run.clear();
  };
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_sequence(text, at);
    const int combining = length == 1 ? 0 : combining_class(utf8_decode(text, at, length));
    if (combining == 0) {
      flush();
      out += text.substr(at, length);
    } else {
      run.push_back({combining, text.substr(at, length)});
    }
    at += length;
  }
  flush();
  return out;
}

// True when no character of U+0300 or above occurs: such text is in every composed form already
// (UAX #15, quick check).
bool below_marks(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0xCC; });
}

void append_form(std::string& out, std::string_view valid, int options) {
  const bool ascii = std::all_of(valid.begin(), valid.end(),
                                 [](char c) { return static_cast<uint8_t>(c) < 0x80; });
  if (ascii || (options == UTF8PROC_COMPOSE && below_marks(valid))) {
    out += valid;
    return;
  }
  const std::string sorted = sort_marks(valid);
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(sorted.data()),
                   static_cast<utf8proc_ssize_t>(sorted.size()), &mapped,
                   static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  if (length >= 0) {
    out.append(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
  } else {
    out += valid;
  }
  std::free(mapped); // NOLINT(cppcoreguidelines-no-malloc): utf8proc allocates so
}

// Calls fn(run, valid) for the runs of valid UTF-8 and of other bytes that make up the text.
template <class Fn> void for_each_run(std::string_view text, Fn fn) {
  while (!text.empty()) {
    size_t length = utf8_valid_prefix(text);
    const bool valid = length != 0;
    while (!valid && length < text.size() && utf8_sequence(text, length) == 0)
      ++length;
    fn(text.substr(0, length), valid);
    text.remove_prefix(length);
  }
}

} // namespace

Result<TextPattern> TextPattern::parse(const Json& owner, const std::string& where) {
  const Json* pattern = json_find(owner, "pattern");
  if (pattern != nullptr && pattern->is_string()) { // an older spelling of {"String": ...}
    return TextPattern{pattern->get<std::string>(), nullptr};
  }
  const Json* literal = pattern == nullptr ? nullptr : json_find(*pattern, "String");
  if (literal != nullptr && literal->is_string()) {
    return TextPattern{literal->get<std::string>(), nullptr};
  }
  const Json* regex = pattern == nullptr ? nullptr : json_find(*pattern, "Regex");
  if (regex == nullptr || !regex->is_string()) {
    return fail(ErrorCode::kInvalidInput,
                "'pattern' is not {\"String\": \"...\"} or {\"Regex\": \"...\"}", where);
  }
  PINHOLE_TRY(Regex compiled, Regex::compile(regex->get<std::string>(), where));
  return TextPattern{{}, std::make_shared<const Regex>(std::move(compiled))};
}

Result<Normalizer> Normalizer::parse(const Json& json, const std::string& where) {
  Normalizer normalizer;
  if (!json.is_null()) {
    PINHOLE_CHECK(normalizer.parse_step(json, 0, where + ", normalizer"));
  }
  return normalizer;
}

Status Normalizer::parse_step(const Json& json, int depth, const std::string& where) {
  if (depth > kMaxDepth || steps_.size() > kMaxSteps) {
    return fail(ErrorCode::kTooLarge, "too many nested or chained normalizers", where);
  }
  PINHOLE_TRY(const std::string type, json_string(json, "type", where));
  if (type == "Sequence") {
    const Json* list = json_find(json, "normalizers");
    if (list == nullptr || !list->is_array()) {
      return fail(ErrorCode::kInvalidInput, "a Sequence without an array 'normalizers'", where);
    }
    for (const Json& item : *list)
      PINHOLE_CHECK(parse_step(item, depth + 1, where));
    return {};
  }
  Step step{Kind::kUnicode};
  if (type == "NFC") {
    step.form = UTF8PROC_COMPOSE;
  } else if (type == "NFD") {
    step.form = UTF8PROC_DECOMPOSE;
  } else if (type == "NFKC") {
    step.form = UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
  } else if (type == "NFKD") {
    step.form = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  } else if (type == "Prepend") {
    step.kind = Kind::kPrepend;
    PINHOLE_TRY(step.to, json_string(json, "prepend", where));
  } else if (type == "Replace") {
    PINHOLE_TRY(TextPattern pattern, TextPattern::parse(json, where));
    PINHOLE_TRY(step.to, json_string(json, "content", where));
    step.kind = pattern.regex == nullptr ? Kind::kReplace : Kind::kReplaceRegex;
    step.from = std::move(pattern.literal);
    step.regex = std::move(pattern.regex);
    if (step.kind == Kind::kReplace && step.from.empty())
      return {}; // matches nothing
  } else {
    return fail(ErrorCode::kUnsupported, fmt::format("normalizer '{}' is not supported", type),
                where);
  }
  if (step.to.size() > kMaxReplacementBytes) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("{} of {} bytes, at most {} are supported", type, step.to.size(),
                            kMaxReplacementBytes),
                where);
  }
  steps_.push_back(std::move(step));
  return {};
}

void Normalizer::add_replace(std::string from, std::string to) {
  steps_.push_back({Kind::kReplace, 0, std::move(from), std::move(to), nullptr});
}

void Normalizer::add_prepend(std::string prefix) {
  steps_.push_back({Kind::kPrepend, 0, {}, std::move(prefix), nullptr});
}

std::string Normalizer::normalize(std::string_view text) const {
  std::string current(text);
  for (const Step& step : steps_) {
    if (step.kind == Kind::kPrepend) {
      if (!current.empty())
        current.insert(0, step.to);
      continue;
    }
    std::string next;
    next.reserve(current.size() + current.size() / 4);
    const std::string_view source = current;
    switch (step.kind) {
    case Kind::kUnicode:
      for_each_run(source, [&](std::string_view run, bool valid) {
        if (valid)
          append_form(next, run, step.form);
        else
          next += run;
      });
      break;
    case Kind::kReplace: {
      size_t done = 0;
      for (size_t at; (at = source.find(step.from, done)) != std::string_view::npos;) {
        next.append(source, done, at - done).append(step.to);
        done = at + step.from.size();
      }
      next.append(source, done);
      break;
    }
    case Kind::kReplaceRegex: {
      RegexMatcher matcher(*step.regex);
      matcher.add_budget(source.size());
      for_each_run(source, [&](std::string_view run, bool valid) {
        size_t done = 0;
        if (valid) {
          matcher.find_all(run, [&](size_t begin, size_t end) {
            next.append(run, done, begin - done).append(step.to);
            done = end;
          });
        }
        next.append(run, done);
      });
      break;
    }
    case Kind::kPrepend:
      break;
    }
    current = std::move(next);
  }
  return current;
}

} // namespace pinhole
