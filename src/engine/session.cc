#include "engine/session.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <fmt/format.h>

namespace pinhole {

namespace {

tl::unexpected<Error> cancelled() { return fail(ErrorCode::kCancelled, "interrupted"); }

FileRange find_table(std::span<const MappedFile* const> files, const Weight& table) {
  const auto bytes = static_cast<uint64_t>(table.row_stride_bytes * table.rows);
  return find_range(files, table.data, bytes).value_or(FileRange{});
}

// Whether the table that `embed` looks up stays in memory for a matmul.
bool table_stays(const Graph& text, const Op& embed, const Residency& residency) {
  for (size_t i = 0; i < text.ops().size(); ++i) {
    if (residency.streams() && residency.text[i])
      continue;
    for (const MatmulPart& part : text.ops()[i].parts) {
      if (text.weight(part.weight).tensor == text.weight(embed.weight).tensor)
        return true;
    }
  }
  return false;
}

bool sees_itself_whole(const Model& model) {
  return model.pictures && model.pictures->sees_itself_whole;
}

} // namespace

Session::Session(const Model& model, MemoryPlan plan, const SessionOptions& options)
    : model_(model), plan_(std::move(plan)), kernels_(options.kernels),
      backend_(options.kernels.num_threads), watch_(options.watch) {}

Result<std::unique_ptr<Session>> Session::create(const Model& model,
                                                 const SessionOptions& options) {
  PINHOLE_TRY(MemoryPlan plan, plan_memory(model, options.shape, options.kernels));
  std::unique_ptr<Session> session(new Session(model, std::move(plan), options));
  const MemoryPlan& p = session->plan_;
  PINHOLE_TRY(session->arena_, AnonymousMemory::reserve(p.arena_bytes, "compute arena"));
  PINHOLE_TRY(session->features_, AnonymousMemory::reserve(p.features_bytes, "picture embeddings"));
  PINHOLE_TRY(session->cache_, KvCache::create(model.cache, options.kernels.kv_type, p.shape));
  PINHOLE_TRY(session->picture_cache_,
              PictureCache::create(model.cache, options.kernels.kv_type,
                                   p.picture_cache_bytes > 0 ? p.shape.feature_tokens : 0));
  if (p.features_bytes > 0) {
    session->features_view_ = {reinterpret_cast<float*>(session->features_.data()),
                               p.shape.feature_tokens, model.pictures->feature_size};
  }
  if (options.limit_bytes > 0) {
    PINHOLE_TRY(session->residency_, plan_residency(model, p, options.limit_bytes));
    if (session->residency_.streams()) {
      PINHOLE_CHECK(session->stream_weights(options.files));
    }
  }
  for (const Op& op : model.text.ops()) {
    if (op.kind == OpKind::kEmbed && !table_stays(model.text, op, session->residency_))
      session->embedding_ = find_table(options.files, model.text.weight(op.weight));
  }
  if (const FileRange& table = session->embedding_; table.file != nullptr) {
    table.file->keep_apart(table.offset, table.bytes);
  }
  session->history_.reserve(static_cast<size_t>(p.shape.context_tokens));
  if (p.features_bytes > 0 || p.picture_cache_bytes > 0) { // every picture has a token
    const auto most = static_cast<size_t>(p.shape.feature_tokens);
    session->pictures_.reserve(most);
    if (p.picture_cache_bytes > 0) {
      session->conversation_.reserve(most);
      session->next_conversation_.reserve(most);
      session->conversation_ids_.reserve(most);
      session->picture_begins_.reserve(most + 1);
    }
    Windows& windows = session->windows_;
    const int64_t merge = model.pictures->merge_size;
    if (model.pictures->window_size_px > 0) {
      for (auto* part : {&windows.order, &windows.inverse, &windows.begin, &windows.end})
        part->reserve(static_cast<size_t>(p.shape.max_patches / (merge * merge)));
    }
  }
  return session;
}

void Session::unmap_tables() const {
  for (const FileRange& table : tables_) {
    if (table.file != nullptr)
      table.file->unmap(table.offset, table.bytes);
  }
}

Status Session::stream_weights(std::span<const MappedFile* const> files) {
  const Residency& r = residency_;
  PINHOLE_TRY(window_, AnonymousMemory::reserve(r.window_bytes, "window of streamed weights"));
  text_stream_ = std::make_unique<WeightStream>(model_.text, r.text, files, window_);
  if (r.expert_cache_bytes > 0) {
    PINHOLE_TRY(experts_, ExpertCache::create(model_.text, files, r.expert_cache_bytes));
  }
  vision_stream_ = std::make_unique<WeightStream>(model_.vision, r.vision, files, window_);
  for (const Op& op : model_.vision.ops()) {
    if (looks_up_table(model_.vision, op))
      tables_.push_back(find_table(files, model_.vision.weight(op.weight)));
  }
  return {};
}

// --- pictures ---

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
    std::byte* data = value_data(model_.vision, plan_.vision, arena_.data(), input.value);
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
          value_data(model_.vision, plan_.vision, arena_.data(), weights->value));
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

Result<Session::EncodedPicture>
Session::encode(const Sha256Digest& digest, const PatchGrid& grid,
                FunctionRef<void(int64_t, int64_t, float*)> write_patches,
                std::span<const Sha256Digest> keep, const std::atomic<bool>* cancel) {
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
        value_data(model_.vision, plan_.vision, arena_.data(), input.value));
    const int64_t cols = model_.vision.value(input.value).cols;
    backend_.threads().run([&](int thread_idx) {
      const int64_t threads = backend_.threads().num_threads();
      const int64_t begin = grid.patches() * thread_idx / threads;
      const int64_t end = grid.patches() * (thread_idx + 1) / threads;
      write_patches(begin, end, patches + begin * cols);
    });
  }
  fit_experts();
  RunContext context;
  context.arena = arena_.data();
  context.cancel = cancel;
  context.stream = vision_stream_.get();
  context.pictures = &picture_cache_;
  context.picture_row = first_row;
  context.picture_rows = grid.tokens();
  if (text_stream_ != nullptr)
    text_stream_->rest();
  const bool finished = backend_.run(model_.vision, plan_.vision, {grid.patches(), 0}, context);
  unmap_tables();
  if (vision_stream_ != nullptr)
    vision_stream_->rest();
  if (!finished)
    return cancelled();

  for (const Graph::Output& output : model_.vision.outputs()) {
    const int32_t slot = std::stoi(output.name.substr(output.name.find('.') + 1));
    if (slot >= model_.pictures->feature_slots)
      continue;
    const auto* data = reinterpret_cast<const float*>(
        value_data(model_.vision, plan_.vision, arena_.data(), output.value));
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

// --- text ---

std::byte* Session::text_input(InputKind kind) const {
  for (const Input& input : model_.text.inputs()) {
    if (input.kind == kind) {
      return value_data(model_.text, plan_.text, arena_.data(), input.value);
    }
  }
  return nullptr;
}

Status Session::check(std::span<const PromptToken> tokens) const {
  for (const PromptToken& token : tokens) {
    if (token.id < 0 || token.id >= model_.input_ids) {
      return fail(
          ErrorCode::kInvalidInput,
          fmt::format("token id {} is outside the vocabulary of {}", token.id, model_.input_ids));
    }
    if (token.feature_row >= plan_.shape.feature_tokens) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("picture row {} is outside the store of {}", token.feature_row,
                              plan_.shape.feature_tokens));
    }
  }
  if (sees_itself_whole(model_) && !tokens.empty() && tokens.front().is_picture() &&
      !history_.empty() && history_.back().is_picture()) {
    return fail(ErrorCode::kInvalidInput, "the tokens of one picture come in parts");
  }
  const int64_t needed = length() + static_cast<int64_t>(tokens.size());
  if (needed > plan_.shape.context_tokens) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the context holds {} tokens, {} are needed",
                            plan_.shape.context_tokens, needed),
                {}, "raise --ctx, lower --max-image-tokens, or shorten the prompt");
  }
  return {};
}

size_t Session::cut_before(std::span<const PromptToken> tokens, size_t at) const {
  if (!sees_itself_whole(model_) || at >= tokens.size() || !tokens[at].is_picture())
    return at;
  while (at > 0 && tokens[at - 1].is_picture())
    --at;
  return at;
}

Result<size_t> Session::next_chunk(std::span<const PromptToken> rest) const {
  const auto chunk = static_cast<size_t>(plan_.shape.chunk_tokens);
  if (rest.size() <= chunk)
    return rest.size();
  const size_t end = cut_before(rest, chunk);
  if (end > 0)
    return end;
  return fail(ErrorCode::kTooLarge,
              fmt::format("a picture of more than {} tokens, which must be read at once", chunk),
              {}, "raise --chunk");
}

// Numbers of rows in the cache. A row sees what came before it and itself; in a windowed layer the
// last ones of these; and of its own picture, where the model wants it, every token.
void Session::fill_key_ranges(std::span<const PromptToken> tokens) const {
  const auto past = static_cast<int32_t>(length());
  const auto n = static_cast<int32_t>(tokens.size());
  const bool whole = sees_itself_whole(model_);
  for (const Input& input : model_.text.inputs()) {
    if (input.kind != InputKind::kKeyBegin && input.kind != InputKind::kKeyEnd)
      continue;
    auto* out =
        reinterpret_cast<int32_t*>(value_data(model_.text, plan_.text, arena_.data(), input.value));
    const auto front =
        static_cast<int32_t>(input.parameter == 0 ? 0 : cache_.first_sliding_token());
    for (int32_t begin = 0; begin < n;) {
      int32_t end = begin + 1;
      if (whole && tokens[static_cast<size_t>(begin)].is_picture()) {
        while (end < n && tokens[static_cast<size_t>(end)].is_picture())
          ++end;
      }
      for (int32_t i = begin; i < end; ++i) {
        if (input.kind == InputKind::kKeyEnd) {
          out[i] = past + end - front;
          continue;
        }
        const int64_t first = input.parameter == 0 ? 0 : past + i + 1 - input.parameter;
        out[i] = static_cast<int32_t>(std::clamp<int64_t>(first, 0, past + begin)) - front;
      }
      begin = end;
    }
  }
}

Result<std::span<const float>> Session::run_chunk(std::span<const PromptToken> tokens,
                                                  int64_t outputs,
                                                  const std::atomic<bool>* cancel) {
  const auto n = static_cast<int64_t>(tokens.size());
  const int64_t past = length();
  const auto ints = [this](InputKind kind) { return reinterpret_cast<int32_t*>(text_input(kind)); };
  int32_t* ids = ints(InputKind::kTokenIds);
  int32_t* positions = ints(InputKind::kPositions);
  int32_t* feature_rows = ints(InputKind::kFeatureRows);
  int32_t* output_rows = ints(InputKind::kOutputRows);
  for (int64_t i = 0; i < n; ++i) {
    const PromptToken& token = tokens[static_cast<size_t>(i)];
    ids[i] = token.id;
    for (int64_t axis = 0; axis < model_.position_axes; ++axis) {
      positions[i * model_.position_axes + axis] = token.position[static_cast<size_t>(axis)];
    }
    feature_rows[i] = token.feature_row;
  }
  cache_.make_room(past, n);
  fill_key_ranges(tokens);
  if (model_.cache.has_cross()) {
    PINHOLE_CHECK(arrange_conversation());
    fill_picture_inputs(tokens);
  }
  for (int64_t i = 0; i < outputs; ++i)
    output_rows[i] = static_cast<int32_t>(n - outputs + i);

  fit_experts();
  RunContext context;
  context.arena = arena_.data();
  context.cache = &cache_;
  context.past_tokens = past;
  context.features = features_view_;
  context.pictures = &picture_cache_;
  context.picture_rows = conversation_.empty() ? 0 : conversation_rows_;
  context.cancel = cancel;
  context.stream = text_stream_.get();
  context.experts = experts_.get();
  context.unmapped_table = embedding_;
  const bool finished = backend_.run(model_.text, plan_.text, {n, outputs}, context);
  if (!finished) {
    if (text_stream_ != nullptr)
      text_stream_->rest();
    return cancelled();
  }
  history_.insert(history_.end(), tokens.begin(), tokens.end());
  for (const PromptToken& token : tokens)
    sight_.advance(token);
  const auto* logits = reinterpret_cast<const float*>(
      value_data(model_.text, plan_.text, arena_.data(), model_.text.outputs().front().value));
  return std::span<const float>(logits, static_cast<size_t>(outputs * model_.vocab_size));
}

void Session::truncate(int64_t length) {
  if (length >= this->length())
    return;
  const size_t whole = cut_before(history_, static_cast<size_t>(length));
  history_.resize(static_cast<size_t>(cache_.usable(static_cast<int64_t>(whole))));
  sight_ = {};
  for (const PromptToken& token : history_)
    sight_.advance(token);
  if (history_.empty())
    cache_.clear();
}

Result<std::span<const float>> Session::prefill(std::span<const PromptToken> prompt,
                                                const std::atomic<bool>* cancel, int64_t* reused,
                                                FunctionRef<void(int64_t, int64_t)> progress) {
  if (prompt.empty())
    return fail(ErrorCode::kInvalidInput, "the prompt is empty");
  PINHOLE_CHECK(set_conversation(prompt));
  size_t common = 0;
  while (common < history_.size() && common + 1 < prompt.size() &&
         history_[common].same_as(prompt[common])) {
    ++common;
  }
  common = cut_before(prompt, common);
  truncate(static_cast<int64_t>(common));
  common = history_.size();
  if (reused != nullptr)
    *reused = static_cast<int64_t>(common);
  std::span<const PromptToken> rest = prompt.subspan(common);
  PINHOLE_CHECK(check(rest));
  const auto total = static_cast<int64_t>(rest.size());
  while (true) {
    PINHOLE_TRY(const size_t n, next_chunk(rest));
    if (n == rest.size())
      break;
    PINHOLE_CHECK(run_chunk(rest.first(n), 0, cancel));
    rest = rest.subspan(n);
    progress(total - static_cast<int64_t>(rest.size()), total);
  }
  auto logits = run_chunk(rest, 1, cancel);
  progress(total, total);
  return logits;
}

Result<std::span<const float>> Session::step(const PromptToken& token,
                                             const std::atomic<bool>* cancel) {
  PINHOLE_CHECK(check({&token, 1}));
  if (model_.cache.has_cross() && token.picture_key != 0)
    return fail(ErrorCode::kInvalidInput, "a picture comes after its prompt was read");
  if (history_.empty())
    conversation_.clear();
  return run_chunk({&token, 1}, 1, cancel);
}

Status Session::prefill_all_logits(std::span<const PromptToken> prompt,
                                   FunctionRef<void(int64_t, std::span<const float>)> visit) {
  assert(plan_.shape.output_rows == plan_.shape.chunk_tokens);
  PINHOLE_CHECK(check(prompt));
  if (history_.empty())
    PINHOLE_CHECK(set_conversation(prompt));
  int64_t row = length();
  while (!prompt.empty()) {
    PINHOLE_TRY(const size_t n, next_chunk(prompt));
    PINHOLE_TRY(const std::span<const float> logits,
                run_chunk(prompt.first(n), static_cast<int64_t>(n), nullptr));
    const auto vocab = static_cast<size_t>(model_.vocab_size);
    for (size_t i = 0; i < n; ++i)
      visit(row++, logits.subspan(i * vocab, vocab));
    prompt = prompt.subspan(n);
  }
  return {};
}

} // namespace pinhole
