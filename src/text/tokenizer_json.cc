#include "text/tokenizer_json.h"

#include <fmt/format.h>

namespace pinhole {

namespace {

// What is neither vocabulary, merges nor added tokens is small: real files have fewer than 300
// values.
constexpr size_t kMaxValues = 20'000;
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxAddedTokens = 1'000'000;

// The events of nlohmann's parser, sorted by where in the file they happen.
class TokenizerFileReader : public nlohmann::json_sax<Json> {
 public:
  TokenizerFileReader(TokenizerFile& file, const std::string& where) : file_(file), where_(where) {}

  const Error& error() const { return error_; }

  bool null() override { return value(Json()); }
  bool boolean(bool v) override { return value(Json(v)); }
  bool number_integer(number_integer_t v) override { return value(Json(v)); }
  bool number_unsigned(number_unsigned_t v) override {
    if (place_ != Place::kVocabulary)
      return value(Json(v));
    if (v > INT32_MAX) {
      return invalid(fmt::format("token '{}' has id {}, above {}", key_, v, INT32_MAX));
    }
    file_.vocabulary.add_text(key_);
    file_.vocabulary.add_number(static_cast<uint32_t>(v));
    ++file_.vocabulary_count;
    return true;
  }
  bool number_float(number_float_t v, const string_t&) override { return value(Json(v)); }
  bool binary(binary_t&) override { return invalid("binary data in JSON"); }

  bool string(string_t& v) override {
    if (place_ == Place::kMerges) {
      // "left right"; a token may itself begin with a space.
      const size_t space = v.find(' ', 1);
      if (space == std::string::npos) {
        return invalid(fmt::format("merge {} is '{}', expected two tokens and a space between",
                                   file_.merge_count, v));
      }
      return merge(std::string_view(v).substr(0, space), std::string_view(v).substr(space + 1));
    }
    if (place_ == Place::kMergePair) {
      if (pair_count_ == 2)
        return invalid("a merge of more than two tokens");
      pair_[pair_count_++].swap(v);
      return true;
    }
    return value(Json(std::move(v)));
  }

  bool key(string_t& v) override {
    key_.swap(v);
    if (place_ == Place::kTree && skipped_ == 0)
      tree_keys_.back() = key_;
    return true;
  }

  bool start_object(std::size_t) override {
    if (++depth_ > kMaxDepth)
      return too_deep();
    switch (place_) {
    case Place::kOutside:
      place_ = Place::kRoot;
      return true;
    case Place::kRoot:
      if (key_ == "model") {
        if (seen_model_)
          return invalid("'model' occurs twice");
        seen_model_ = true;
        file_.root["model"] = Json::object();
        place_ = Place::kModel;
        return true;
      }
      return start_tree(Json::object());
    case Place::kModel:
      if (key_ == "vocab") {
        if (seen_vocabulary_)
          return invalid("'vocab' occurs twice");
        seen_vocabulary_ = true;
        place_ = Place::kVocabulary;
        return true;
      }
      return start_tree(Json::object());
    case Place::kAdded:
      return start_tree(Json::object());
    case Place::kTree:
      return start_tree(Json::object());
    case Place::kVocabulary:
      return invalid(fmt::format("the id of token '{}' is an object", key_));
    default:
      return invalid("an object where a merge is expected");
    }
  }

  bool end_object() override {
    --depth_;
    if (place_ == Place::kTree)
      return end_tree();
    if (place_ == Place::kVocabulary)
      place_ = Place::kModel;
    else if (place_ == Place::kModel)
      place_ = Place::kRoot;
    else
      place_ = Place::kOutside;
    return true;
  }

  bool start_array(std::size_t) override {
    if (++depth_ > kMaxDepth)
      return too_deep();
    switch (place_) {
    case Place::kRoot:
      if (key_ == "added_tokens") {
        place_ = Place::kAdded;
        return true;
      }
      return start_tree(Json::array());
    case Place::kModel:
      if (key_ == "merges") {
        if (seen_merges_)
          return invalid("'merges' occurs twice");
        seen_merges_ = true;
        place_ = Place::kMerges;
        return true;
      }
      return start_tree(Json::array());
    case Place::kMerges:
      place_ = Place::kMergePair;
      pair_count_ = 0;
      return true;
    case Place::kTree:
      return start_tree(Json::array());
    case Place::kOutside:
      return invalid("the file is an array, expected an object");
    case Place::kVocabulary:
      return invalid(fmt::format("the id of token '{}' is an array", key_));
    default:
      return invalid("an array within a list of tokens");
    }
  }

  bool end_array() override {
    --depth_;
    switch (place_) {
    case Place::kTree:
      return end_tree();
    case Place::kMergePair:
      place_ = Place::kMerges;
      if (pair_count_ != 2) {
        return invalid(
            fmt::format("merge {} has {} tokens, expected two", file_.merge_count, pair_count_));
      }
      return merge(pair_[0], pair_[1]);
    case Place::kMerges:
      place_ = Place::kModel;
      return true;
    default:
      place_ = Place::kRoot;
      return true; // kAdded
    }
  }

  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::detail::exception& error) override {
    return invalid(fmt::format("not valid JSON: {}", error.what()));
  }

 private:
  enum class Place {
    kOutside,
    kRoot,
    kModel,
    kVocabulary,
    kMerges,
    kMergePair,
    kAdded,
    kTree, // within a value that becomes Json, or that is skipped
  };

  bool invalid(std::string message, ErrorCode code = ErrorCode::kInvalidInput) {
    if (error_.message.empty())
      error_ = Error{code, std::move(message), where_, {}};
    return false;
  }
  bool too_deep() {
    return invalid(fmt::format("JSON nested deeper than {}", kMaxDepth), ErrorCode::kTooLarge);
  }

  bool merge(std::string_view left, std::string_view right) {
    if (left.empty() || right.empty()) {
      return invalid(fmt::format("merge {} has an empty token", file_.merge_count));
    }
    file_.merges.add_text(left);
    file_.merges.add_text(right);
    ++file_.merge_count;
    return true;
  }

  static bool is_kept(std::string_view key) {
    return key == "normalizer" || key == "pre_tokenizer" || key == "post_processor" ||
           key == "decoder";
  }

  // A scalar.
  bool value(Json json) {
    switch (place_) {
    case Place::kTree:
      if (skipped_ != 0)
        return true;
      return insert(std::move(json)) != nullptr;
    case Place::kRoot:
      if (is_kept(key_))
        file_.root[key_] = std::move(json);
      return true;
    case Place::kModel:
      if (++values_ > kMaxValues)
        return too_many();
      file_.root["model"][key_] = std::move(json);
      return true;
    case Place::kVocabulary:
      return invalid(fmt::format("the id of token '{}' is {}", key_,
                                 json.dump(-1, ' ', false, Json::error_handler_t::replace)));
    case Place::kOutside:
      return invalid("the file is a single value, expected an object");
    default:
      return invalid("a value that is neither a token nor a merge in a list of them");
    }
  }

  bool too_many() {
    return invalid(fmt::format("more than {} values beside vocabulary and merges", kMaxValues),
                   ErrorCode::kTooLarge);
  }

  // Puts a value into the innermost open container of the tree; null after an error.
  Json* insert(Json json) {
    if (++values_ > kMaxValues) {
      too_many();
      return nullptr;
    }
    Json& parent = *tree_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(json));
      return &parent.back();
    }
    Json& slot = parent[tree_keys_.back()];
    slot = std::move(json);
    return &slot;
  }

  bool start_tree(Json container) {
    if (skipped_ != 0) {
      ++skipped_;
      return true;
    }
    if (place_ == Place::kTree) {
      Json* inserted = insert(std::move(container));
      if (inserted == nullptr)
        return false;
      tree_.push_back(inserted);
      tree_keys_.emplace_back();
      return true;
    }
    outer_ = place_;
    place_ = Place::kTree;
    if (outer_ == Place::kAdded) {
      values_ = 0;
      added_ = std::move(container);
      tree_ = {&added_};
    } else if (outer_ == Place::kRoot && is_kept(key_)) {
      Json& slot = file_.root[key_];
      slot = std::move(container);
      tree_ = {&slot};
    } else {
      skipped_ = 1;
      return true;
    }
    tree_keys_ = {std::string()};
    return true;
  }

  bool end_tree() {
    if (skipped_ != 0) {
      if (--skipped_ == 0)
        place_ = outer_;
      return true;
    }
    tree_.pop_back();
    tree_keys_.pop_back();
    if (!tree_.empty())
      return true;
    place_ = outer_;
    return outer_ != Place::kAdded || add_token();
  }

  bool add_token() {
    if (file_.added.size() >= kMaxAddedTokens) {
      return invalid(fmt::format("more than {} added tokens", kMaxAddedTokens),
                     ErrorCode::kTooLarge);
    }
    auto token = parse_added_token(added_, where_);
    if (!token) {
      error_ = std::move(token.error());
      return false;
    }
    file_.added.push_back(std::move(*token));
    values_ = 0;
    return true;
  }

  TokenizerFile& file_;
  const std::string& where_;
  Error error_;
  Place place_ = Place::kOutside;
  Place outer_ = Place::kRoot; // where the tree is
  size_t depth_ = 0;
  size_t skipped_ = 0; // open containers of a value that is not kept
  size_t values_ = 0;
  std::string key_;
  Json added_;              // the added token being read
  std::vector<Json*> tree_; // open containers, outermost first
  std::vector<std::string> tree_keys_;
  std::string pair_[2];
  size_t pair_count_ = 0;
  bool seen_model_ = false, seen_vocabulary_ = false, seen_merges_ = false;
};

} // namespace

void PackedTexts::add_number(uint32_t number) {
  for (; number >= 0x80; number >>= 7)
    bytes_.push_back(static_cast<char>(number | 0x80));
  bytes_.push_back(static_cast<char>(number));
}

void PackedTexts::add_text(std::string_view text) {
  add_number(static_cast<uint32_t>(text.size()));
  bytes_ += text;
}

uint32_t PackedTexts::Cursor::number() {
  uint32_t number = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes_[at_++]);
    number |= static_cast<uint32_t>(byte & 0x7F) << shift;
    if (byte < 0x80)
      return number;
  }
}

std::string_view PackedTexts::Cursor::text() {
  const uint32_t length = number();
  const std::string_view text = bytes_.substr(at_, length);
  at_ += length;
  return text;
}

Result<AddedTokenEntry> parse_added_token(const Json& json, const std::string& where) {
  AddedTokenEntry token;
  PINHOLE_TRY(token.id, json_int_or(json, "id", -1, where));
  PINHOLE_TRY(token.content, json_string(json, "content", where));
  PINHOLE_TRY(token.special, json_bool_or(json, "special", false, where));
  PINHOLE_TRY(token.single_word, json_bool_or(json, "single_word", false, where));
  PINHOLE_TRY(token.lstrip, json_bool_or(json, "lstrip", false, where));
  PINHOLE_TRY(token.rstrip, json_bool_or(json, "rstrip", false, where));
  PINHOLE_TRY(token.normalized, json_bool_or(json, "normalized", !token.special, where));
  return token;
}

Result<TokenizerFile> read_tokenizer_json(std::string_view text, const std::string& where) {
  if (text.size() > INT32_MAX) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("{} bytes, at most {} are supported", text.size(), INT32_MAX), where);
  }
  TokenizerFile file;
  TokenizerFileReader reader(file, where);
  if (!Json::sax_parse(text.data(), text.data() + text.size(), &reader)) {
    return tl::unexpected<Error>(reader.error());
  }
  file.merges.shrink();
  return file;
}

} // namespace pinhole
