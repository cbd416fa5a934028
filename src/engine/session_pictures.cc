// Pictures of a session: the vision tower, and the store that its results stay in.
#include "engine/session.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <fmt/format.h>

namespace pinhole {

std::optional<Session::EncodedPicture> Session::find_picture(const Sha256Digest& digest) const {
  for (const StoredPicture& picture : pictures_) {
    if (picture.digest == digest) {
      EncodedPicture found = picture.rows;
      found.from_cache = true;
      return found;
    }
  }
  return std::nullopt;
}

// Finds rows for `tokens`, dropping the pictures that were used longest ago.
Result<int32_t> Session::make_room(int64_t tokens, std::span<const Sha256Digest> keep) {
  const int64_t capacity = plan_.shape.feature_tokens;
  while (true) {
    std::sort(pictures_.begin(), pictures_.end(),
              [](const auto& a, const auto& b) { return a.rows.first_row < b.rows.first_row; });
    int64_t at = 0;
    for (const StoredPicture& picture : pictures_) {
      if (picture.rows.first_row - at >= tokens)
        break;
      at = picture.rows.first_row + picture.rows.tokens;
    }
    if (capacity - at >= tokens)
      return static_cast<int32_t>(at);
    auto oldest = pictures_.end();
    for (auto it = pictures_.begin(); it != pictures_.end(); ++it) {
      if (std::find(keep.begin(), keep.end(), it->digest) != keep.end())
        continue;
      if (oldest == pictures_.end() || it->last_use < oldest->last_use)
        oldest = it;
    }
    if (oldest == pictures_.end()) {
      return fail(
          ErrorCode::kTooLarge,
          fmt::format("the pictures need {} tokens at once, {} were planned", tokens, capacity), {},
          "send fewer or smaller pictures (--max-image-tokens)");
    }
    pictures_.erase(oldest);
  }
}

void Session::fill_vision_inputs(const PatchGrid& grid) {
  const auto n = static_cast<size_t>(grid.patches());
  const auto unit = static_cast<size_t>(grid.merge * grid.merge);
  const int64_t window_px = model_.pictures->window_size_px;
  if (window_px > 0)
    make_windows(grid, window_px / (model_.pictures->patch_size * grid.merge), windows_);
  for (const Input& input : model_.vision.inputs()) {
    std::byte* data = value_data(model_.vision, plan_.vision, vision_arena(), input.value);
    auto* ints = reinterpret_cast<int32_t*>(data);
    switch (input.kind) {
    case InputKind::kPatchPositions:
      patch_positions(grid, windows_.order, {ints, 2 * n});
      break;
    case InputKind::kTableRows: {
      const Input* weights = nullptr;
      for (const Input& other : model_.vision.inputs()) {
        if (other.kind == InputKind::kTableWeights)
          weights = &other;
      }
      assert(weights != nullptr);
      auto* out = reinterpret_cast<float*>(
          value_data(model_.vision, plan_.vision, vision_arena(), weights->value));
      position_table_corners(grid, input.parameter, {ints, 4 * n}, {out, 4 * n});
      break;
    }
    case InputKind::kKeyBegin:
    case InputKind::kKeyEnd: {
      const bool begin = input.kind == InputKind::kKeyBegin;
      const int64_t rows =
          RowBinding{grid.patches(), 0}.count(model_.vision.value(input.value).rows);
      const int64_t seen = grid.tiles > 0 ? grid.seen_tokens() : rows;
      for (size_t i = 0; i < static_cast<size_t>(rows); ++i) {
        if (input.parameter == 0) {
          // Rows of empty tiles, or of nothing, do not see each other.
          const int64_t end = static_cast<int64_t>(i) < seen ? rows : seen;
          ints[i] = begin ? 0 : static_cast<int32_t>(end);
        } else {
          const auto& bound = begin ? windows_.begin : windows_.end;
          ints[i] = bound[i / unit] * static_cast<int32_t>(unit);
        }
      }
      break;
    }
    case InputKind::kWindowOrder:
      for (size_t i = 0; i < n; ++i) {
        ints[i] =
            windows_.order[i / unit] * static_cast<int32_t>(unit) + static_cast<int32_t>(i % unit);
      }
      break;
    case InputKind::kWindowInverse:
      std::copy(windows_.inverse.begin(), windows_.inverse.end(), ints);
      break;
    case InputKind::kTileRows:
      tile_numbers(grid, static_cast<TileNumbering>(input.parameter), {ints, n});
      break;
    default:
      break; // kTableWeights: with kTableRows; kPatches: by the caller
    }
  }
}

bool Session::run_vision(const PatchGrid& grid, int32_t first_row, const std::atomic<bool>* cancel,
                         FunctionRef<void()> between) {
  fit_experts();
  RunContext context;
  context.arena = vision_arena();
  context.cancel = cancel;
  context.stream = vision_stream_.get();
  context.pictures = &picture_cache_;
  context.picture_row = first_row;
  context.picture_rows = grid.tokens();
  const RowBinding rows{grid.patches(), 0};
  if (text_stream_ != nullptr)
    text_stream_->rest();
  bool finished = true;
  if (yields_in_encode()) {
    const std::vector<Op>& ops = model_.vision.ops();
    for (size_t begin = 0; begin < ops.size() && finished; begin = context.end_op) {
      if (begin > 0)
        between();
      context.first_op = begin;
      context.end_op = begin + 1;
      while (context.end_op < ops.size() && ops[context.end_op].block == ops[begin].block)
        ++context.end_op;
      finished = backend_.run(model_.vision, plan_.vision, rows, context);
    }
  } else {
    finished = backend_.run(model_.vision, plan_.vision, rows, context);
  }
  unmap_tables();
  if (vision_stream_ != nullptr)
    vision_stream_->rest();
  return finished;
}

Result<Session::EncodedPicture>
Session::encode(const Sha256Digest& digest, const PatchGrid& grid,
                FunctionRef<void(int64_t, int64_t, float*)> write_patches,
                std::span<const Sha256Digest> keep, const std::atomic<bool>* cancel,
                FunctionRef<void()> between) {
  ++clock_;
  for (StoredPicture& picture : pictures_) {
    if (picture.digest != digest)
      continue;
    picture.last_use = clock_;
    EncodedPicture found = picture.rows;
    found.from_cache = true;
    return found;
  }
  if (!model_.pictures) {
    return fail(ErrorCode::kUnsupported, "this model has no vision part", {},
                "give its projector with --mmproj");
  }
  if (grid.patches() > plan_.shape.max_patches) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the picture has {} patches, {} were planned", grid.patches(),
                            plan_.shape.max_patches),
                {}, "lower --max-image-tokens");
  }
  const bool is_cached = model_.cache.has_cross();
  PINHOLE_TRY(const int32_t first_row,
              is_cached ? make_cache_room(grid.tokens(), keep) : make_room(grid.tokens(), keep));

  fill_vision_inputs(grid);
  for (const Input& input : model_.vision.inputs()) {
    if (input.kind != InputKind::kPatches)
      continue;
    auto* patches = reinterpret_cast<float*>(
        value_data(model_.vision, plan_.vision, vision_arena(), input.value));
    const int64_t cols = model_.vision.value(input.value).cols;
    backend_.threads().run([&](int thread_idx) {
      const int64_t threads = backend_.threads().num_threads();
      const int64_t begin = grid.patches() * thread_idx / threads;
      const int64_t end = grid.patches() * (thread_idx + 1) / threads;
      write_patches(begin, end, patches + begin * cols);
    });
  }
  if (!run_vision(grid, first_row, cancel, between))
    return fail(ErrorCode::kCancelled, "interrupted");

  for (const Graph::Output& output : model_.vision.outputs()) {
    const int32_t slot = std::stoi(output.name.substr(output.name.find('.') + 1));
    if (slot >= model_.pictures->feature_slots)
      continue;
    const auto* data = reinterpret_cast<const float*>(
        value_data(model_.vision, plan_.vision, vision_arena(), output.value));
    std::memcpy(features_view_.row(slot, first_row), data,
                static_cast<size_t>(grid.tokens() * features_view_.size) * sizeof(float));
  }
  const EncodedPicture rows{first_row, static_cast<int32_t>(grid.tokens()), false};
  pictures_.push_back({digest, rows, clock_, next_picture_id_});
  if (is_cached)
    picture_cache_.add(next_picture_id_, grid.seen_tokens(), grid.tokens());
  ++next_picture_id_;
  return rows;
}

} // namespace pinhole
