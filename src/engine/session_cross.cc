// Pictures that are attended to from cross-attention layers: which of them a token sees, and where
// their keys lie. Source: get_cross_attention_token_mask of transformers'
// models/mllama/processing_mllama.py: a token sees the pictures that stand together before it, the
// last such group; a token before the first picture sees all rows of all pictures, those of empty
// tiles too (_prepare_cross_attention_mask of modeling_mllama.py), but skips the layers' MLP.
#include "engine/session.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <fmt/format.h>

namespace pinhole {

namespace {

uint64_t key_of(const Sha256Digest& digest) {
  uint64_t key = 0;
  std::memcpy(&key, digest.data(), sizeof key);
  return key;
}

} // namespace

void Session::Sight::advance(const PromptToken& token) {
  if (token.picture_key != 0) {
    if (!after_picture)
      begin = end;
    ++end;
  }
  after_picture = token.picture_key != 0;
}

std::span<const float> Session::encoded_row(int64_t row) const {
  const ValueId output = model_.vision.outputs().front().value;
  const Value& value = model_.vision.value(output);
  const auto* data = reinterpret_cast<const float*>(
      value_data(model_.vision, plan_.vision, vision_arena(), output));
  return {data + row * value.stride, static_cast<size_t>(value.cols)};
}

bool Session::in_conversation(const Sha256Digest& digest) const {
  return std::find(conversation_.begin(), conversation_.end(), key_of(digest)) !=
         conversation_.end();
}

Result<int32_t> Session::make_cache_room(int64_t tokens, std::span<const Sha256Digest> keep) {
  while (picture_cache_.used() + tokens > picture_cache_.capacity()) {
    auto oldest = pictures_.end();
    for (auto it = pictures_.begin(); it != pictures_.end(); ++it) {
      if (std::find(keep.begin(), keep.end(), it->digest) != keep.end())
        continue;
      if (oldest == pictures_.end() || it->last_use < oldest->last_use)
        oldest = it;
    }
    if (oldest == pictures_.end()) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("the pictures need {} tokens more in the picture cache, {} of {} are "
                              "free",
                              tokens, picture_cache_.capacity() - picture_cache_.used(),
                              picture_cache_.capacity()),
                  {}, "send fewer pictures");
    }
    picture_cache_.remove(oldest->id);
    pictures_.erase(oldest);
    is_arranged_ = false;
  }
  return static_cast<int32_t>(picture_cache_.used());
}

// Before `prompt` is read: its pictures. What was read with others is forgotten where it depends on
// them, which is where text stands before the first one.
Status Session::set_conversation(std::span<const PromptToken> prompt) {
  if (!model_.cache.has_cross())
    return {};
  next_conversation_.clear();
  for (const PromptToken& token : prompt) {
    if (token.picture_key == 0)
      continue;
    if (next_conversation_.size() == next_conversation_.capacity()) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("the prompt has more than {} pictures", next_conversation_.size()));
    }
    next_conversation_.push_back(token.picture_key);
  }
  if (next_conversation_ == conversation_)
    return {};
  if (prompt.front().picture_key == 0)
    truncate(0);
  std::swap(conversation_, next_conversation_);
  is_arranged_ = false;
  return {};
}

// The id of a stored picture for one place in the conversation. A picture that stands in several
// places is held as many times, as the reference does.
Result<int64_t> Session::take_picture(uint64_t key) {
  StoredPicture* same = nullptr;
  for (StoredPicture& picture : pictures_) {
    if (key_of(picture.digest) != key)
      continue;
    same = &picture;
    if (picture.taken)
      continue;
    picture.taken = true;
    return picture.id;
  }
  if (same == nullptr)
    return fail(ErrorCode::kInvalidInput, "the prompt has a picture that was not encoded");
  // Others than the conversation's give way.
  const StoredPicture original = *same;
  const int64_t rows = picture_cache_.rows_of(original.id);
  while (picture_cache_.used() + rows > picture_cache_.capacity()) {
    const auto other =
        std::find_if(pictures_.begin(), pictures_.end(), [this](const StoredPicture& picture) {
          return !picture.taken && !in_conversation(picture.digest);
        });
    if (other == pictures_.end()) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("a picture stands in several places, and the picture cache of {} "
                              "tokens has no room for another {}",
                              picture_cache_.capacity(), rows),
                  {}, "send fewer pictures");
    }
    picture_cache_.remove(other->id);
    pictures_.erase(other);
  }
  picture_cache_.copy(original.id, next_picture_id_);
  pictures_.push_back(original);
  pictures_.back().id = next_picture_id_;
  pictures_.back().taken = true;
  return next_picture_id_++;
}

Status Session::arrange_conversation() {
  if (is_arranged_ || conversation_.empty())
    return {};
  for (StoredPicture& picture : pictures_)
    picture.taken = false;
  conversation_ids_.clear();
  for (const uint64_t key : conversation_) {
    PINHOLE_TRY(const int64_t id, take_picture(key));
    conversation_ids_.push_back(id);
  }
  picture_begins_.resize(conversation_.size() + 1);
  conversation_rows_ = picture_cache_.arrange(conversation_ids_, picture_begins_);
  is_arranged_ = true;
  return {};
}

void Session::fill_picture_inputs(std::span<const PromptToken> tokens) {
  if (conversation_.empty())
    return;
  auto* begin = reinterpret_cast<int32_t*>(text_input(InputKind::kPictureKeyBegin));
  auto* end = reinterpret_cast<int32_t*>(text_input(InputKind::kPictureKeyEnd));
  auto* sees = reinterpret_cast<int32_t*>(text_input(InputKind::kSeesPicture));
  Sight sight = sight_;
  for (size_t i = 0; i < tokens.size(); ++i) {
    sight.advance(tokens[i]);
    assert(sight.end <= conversation_.size());
    sees[i] = sight.end > 0 ? 1 : 0;
    begin[i] = sees[i] != 0 ? static_cast<int32_t>(picture_begins_[sight.begin]) : 0;
    end[i] = static_cast<int32_t>(sees[i] != 0 ? picture_begins_[sight.end] : conversation_rows_);
  }
}

} // namespace pinhole
