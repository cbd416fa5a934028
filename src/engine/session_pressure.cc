// What a session gives back when others need memory, in this order: experts and weights that are
// read again when they are used, pictures of other conversations, then the next question. What a
// question that runs has reserved stays.
#include "base/units.h"
#include "engine/session.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole {

namespace {

std::string shown(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

} // namespace

void Session::fit_experts() {
  if (experts_ == nullptr)
    return;
  const MemoryState& memory = watch_.state(experts_->held_bytes());
  switch (memory.level) {
  case PressureLevel::kNone:
    // What others could have without the experts: it must not become short by them.
    return experts_->set_budget(memory.total_bytes > 0
                                    ? memory.available_bytes - tight_bytes(memory.total_bytes)
                                    : residency_.expert_cache_bytes);
  case PressureLevel::kTight:
    // Half is for the other weights and for what made memory short.
    return experts_->set_budget(memory.available_bytes / 2);
  case PressureLevel::kCritical:
    return experts_->set_budget(0);
  }
}

void Session::forget_pictures(std::span<const Sha256Digest> keep) {
  std::erase_if(pictures_, [&](const StoredPicture& picture) {
    if (std::find(keep.begin(), keep.end(), picture.digest) != keep.end())
      return false;
    if (model_.cache.has_cross()) {
      picture_cache_.remove(picture.id);
      is_arranged_ = false;
      return true;
    }
    const int64_t row_bytes = features_view_.size * static_cast<int64_t>(sizeof(float));
    for (int32_t slot = 0; slot < model_.pictures->feature_slots; ++slot) {
      features_.release_pages((slot * features_view_.capacity + picture.rows.first_row) * row_bytes,
                              picture.rows.tokens * row_bytes);
    }
    return true;
  });
  if (model_.cache.has_cross())
    picture_cache_.release_unused();
}

Status Session::admit(std::span<const Sha256Digest> keep) {
  const MemoryState memory = watch_.read(held_expert_bytes());
  fit_experts();
  if (memory.level == PressureLevel::kNone)
    return {};
  if (text_stream_ != nullptr) {
    text_stream_->rest();
    window_.release_pages(0, window_.bytes());
  }
  forget_pictures(keep);
  if (watch_.read(held_expert_bytes()).level != PressureLevel::kCritical)
    return {};
  const int64_t enough =
      memory.available_bytes < critical_bytes(memory.total_bytes)
          ? critical_bytes(memory.total_bytes)
          : tight_bytes(memory.total_bytes); // and nothing could run for some of the time
  return fail(ErrorCode::kTooLarge,
              fmt::format("memory is short: {} of {} are available, {} must be before a question "
                          "that needs up to {} is begun",
                          shown(memory.available_bytes), shown(memory.total_bytes), shown(enough),
                          shown(plan_.anonymous_bytes())),
              {}, "end other programs, then ask again");
}

} // namespace pinhole
