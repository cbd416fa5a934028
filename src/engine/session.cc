#include "engine/session.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <fmt/format.h>

namespace pinhole {

namespace {

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
  session->histories_.resize(static_cast<size_t>(p.shape.parallel));
  for (std::vector<PromptToken>& history : session->histories_)
    history.reserve(static_cast<size_t>(p.shape.context_tokens));
  session->sequence_rows_.reserve(session->histories_.size());
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

std::byte* Session::text_input(InputKind kind) const {
  for (const Input& input : model_.text.inputs()) {
    if (input.kind == kind) {
      return value_data(model_.text, plan_.text, arena_.data(), input.value);
    }
  }
  return nullptr;
}

Status Session::check(const Part& part) const {
  const std::span<const PromptToken> tokens = part.tokens;
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
  const std::vector<PromptToken>& past = history(part.sequence);
  if (sees_itself_whole(model_) && !tokens.empty() && tokens.front().is_picture() &&
      !past.empty() && past.back().is_picture()) {
    return fail(ErrorCode::kInvalidInput, "the tokens of one picture come in parts");
  }
  const auto needed = static_cast<int64_t>(past.size() + tokens.size());
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

Result<size_t> Session::next_chunk(std::span<const PromptToken> rest, int64_t wanted,
                                   int64_t most) const {
  if (rest.size() <= static_cast<size_t>(wanted))
    return rest.size();
  size_t end = cut_before(rest, static_cast<size_t>(wanted));
  if (end > 0)
    return end;
  while (end < rest.size() && rest[end].is_picture())
    ++end;
  if (end <= static_cast<size_t>(most))
    return end;
  return fail(ErrorCode::kTooLarge,
              fmt::format("a picture of more than {} tokens, which must be read at once", most), {},
              "raise --chunk");
}

// Numbers of rows in the cache. A row sees what came before it and itself; in a windowed layer the
// last ones of these; and of its own picture, where the model wants it, every token.
void Session::fill_key_ranges(const Part& part, int64_t first_row) const {
  const std::span<const PromptToken> tokens = part.tokens;
  const auto past = static_cast<int32_t>(length(part.sequence));
  const auto n = static_cast<int32_t>(tokens.size());
  const bool whole = sees_itself_whole(model_);
  for (const Input& input : model_.text.inputs()) {
    if (input.kind != InputKind::kKeyBegin && input.kind != InputKind::kKeyEnd)
      continue;
    auto* out = reinterpret_cast<int32_t*>(
                    value_data(model_.text, plan_.text, arena_.data(), input.value)) +
                first_row;
    const auto front =
        static_cast<int32_t>(input.parameter == 0 ? 0 : cache_.first_sliding_token(part.sequence));
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

// Of all inputs that go by token.
void Session::fill_text_inputs(const Part& part, int64_t first_row) const {
  const auto ints = [this](InputKind kind) { return reinterpret_cast<int32_t*>(text_input(kind)); };
  int32_t* ids = ints(InputKind::kTokenIds) + first_row;
  int32_t* positions = ints(InputKind::kPositions) + first_row * model_.position_axes;
  int32_t* feature_rows = ints(InputKind::kFeatureRows) + first_row;
  for (size_t i = 0; i < part.tokens.size(); ++i) {
    const PromptToken& token = part.tokens[i];
    ids[i] = token.id;
    for (int64_t axis = 0; axis < model_.position_axes; ++axis)
      *positions++ = token.position[static_cast<size_t>(axis)];
    feature_rows[i] = token.feature_row;
  }
  fill_key_ranges(part, first_row);
}

Result<std::span<const float>> Session::run(std::span<const Part> parts,
                                            const std::atomic<bool>* cancel) {
  for (const Part& part : parts)
    PINHOLE_CHECK(check(part));
  auto* output_rows = reinterpret_cast<int32_t*>(text_input(InputKind::kOutputRows));
  RowBinding rows;
  sequence_rows_.clear();
  for (const Part& part : parts) {
    const auto n = static_cast<int64_t>(part.tokens.size());
    assert(rows.items + n <= plan_.shape.chunk_tokens && part.outputs <= n);
    assert(rows.outputs + part.outputs <= plan_.shape.output_rows);
    cache_.make_room(part.sequence, length(part.sequence), n);
    fill_text_inputs(part, rows.items);
    sequence_rows_.push_back({part.sequence, rows.items, n, length(part.sequence)});
    rows.items += n;
    for (int64_t i = part.outputs; i > 0; --i)
      output_rows[rows.outputs++] = static_cast<int32_t>(rows.items - i);
  }
  if (model_.cache.has_cross()) {
    assert(parts.size() == 1);
    PINHOLE_CHECK(arrange_conversation());
    fill_picture_inputs(parts.front().tokens);
  }

  fit_experts();
  RunContext context;
  context.arena = arena_.data();
  context.cache = &cache_;
  context.sequences = sequence_rows_;
  context.features = features_view_;
  context.pictures = &picture_cache_;
  context.picture_rows = conversation_.empty() ? 0 : conversation_rows_;
  context.cancel = cancel;
  context.stream = text_stream_.get();
  context.experts = experts_.get();
  context.unmapped_table = embedding_;
  const bool finished = backend_.run(model_.text, plan_.text, rows, context);
  if (!finished) {
    if (text_stream_ != nullptr)
      text_stream_->rest();
    return fail(ErrorCode::kCancelled, "interrupted");
  }
  for (const Part& part : parts) {
    std::vector<PromptToken>& past = history(part.sequence);
    past.insert(past.end(), part.tokens.begin(), part.tokens.end());
  }
  for (const Part& part : parts) {
    for (const PromptToken& token : part.tokens)
      sight_.advance(token);
  }
  const auto* logits = reinterpret_cast<const float*>(
      value_data(model_.text, plan_.text, arena_.data(), model_.text.outputs().front().value));
  return std::span<const float>(logits, static_cast<size_t>(rows.outputs * model_.vocab_size));
}

void Session::truncate(int64_t length, int32_t sequence) {
  if (length >= this->length(sequence))
    return;
  std::vector<PromptToken>& past = history(sequence);
  const size_t whole = cut_before(past, static_cast<size_t>(length));
  past.resize(static_cast<size_t>(cache_.usable(sequence, static_cast<int64_t>(whole))));
  sight_ = {};
  for (const PromptToken& token : past)
    sight_.advance(token);
  if (past.empty())
    cache_.clear(sequence);
}

int64_t Session::common_prefix(std::span<const PromptToken> prompt, int32_t sequence) const {
  const std::vector<PromptToken>& past = history(sequence);
  size_t common = 0;
  while (common < past.size() && common + 1 < prompt.size() &&
         past[common].same_as(prompt[common])) {
    ++common;
  }
  common = cut_before(past, cut_before(prompt, common));
  return cache_.usable(sequence, static_cast<int64_t>(common));
}

void Session::copy_prefix(int32_t from, int32_t to, int64_t length) {
  assert(from != to && length <= this->length(from));
  cache_.copy(from, to, length);
  const auto begin = history(from).begin();
  history(to).assign(begin, begin + length);
}

Result<std::span<const float>> Session::prefill(std::span<const PromptToken> prompt,
                                                const std::atomic<bool>* cancel, int64_t* reused,
                                                FunctionRef<void(int64_t, int64_t)> progress) {
  if (prompt.empty())
    return fail(ErrorCode::kInvalidInput, "the prompt is empty");
  PINHOLE_CHECK(set_conversation(prompt));
  truncate(common_prefix(prompt));
  if (reused != nullptr)
    *reused = length();
  std::span<const PromptToken> rest = prompt.subspan(static_cast<size_t>(length()));
  PINHOLE_CHECK(check({0, rest}));
  const auto total = static_cast<int64_t>(rest.size());
  while (true) {
    PINHOLE_TRY(const size_t n, next_chunk(rest));
    if (n == rest.size())
      break;
    const Part chunk{0, rest.first(n)};
    PINHOLE_CHECK(run({&chunk, 1}, cancel));
    rest = rest.subspan(n);
    progress(total - static_cast<int64_t>(rest.size()), total);
  }
  const Part last{0, rest, 1};
  auto logits = run({&last, 1}, cancel);
  progress(total, total);
  return logits;
}

Result<std::span<const float>> Session::step(const PromptToken& token,
                                             const std::atomic<bool>* cancel) {
  if (model_.cache.has_cross() && token.picture_key != 0)
    return fail(ErrorCode::kInvalidInput, "a picture comes after its prompt was read");
  if (length() == 0)
    conversation_.clear();
  const Part part{0, {&token, 1}, 1};
  return run({&part, 1}, cancel);
}

Status Session::prefill_all_logits(std::span<const PromptToken> prompt,
                                   FunctionRef<void(int64_t, std::span<const float>)> visit) {
  assert(plan_.shape.output_rows == plan_.shape.chunk_tokens);
  PINHOLE_CHECK(check({0, prompt}));
  if (length() == 0)
    PINHOLE_CHECK(set_conversation(prompt));
  int64_t row = length();
  while (!prompt.empty()) {
    PINHOLE_TRY(const size_t n, next_chunk(prompt));
    const Part part{0, prompt.first(n), static_cast<int64_t>(n)};
    PINHOLE_TRY(const std::span<const float> logits, run({&part, 1}, nullptr));
    const auto vocab = static_cast<size_t>(model_.vocab_size);
    for (size_t i = 0; i < n; ++i)
      visit(row++, logits.subspan(i * vocab, vocab));
    prompt = prompt.subspan(n);
  }
  return {};
}

} // namespace pinhole
