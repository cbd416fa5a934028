// The words and tables of `pinhole plan`.
#include "base/units.h"
#include "cli/common.h"
#include "cli/plan_report.h"

#include <algorithm>
#include <fmt/format.h>
#include <unistd.h>

namespace pinhole::cli {

namespace {

std::string bytes(int64_t count) { return format_bytes(static_cast<uint64_t>(count)); }
std::string seconds(double value) { return format_millis(value * 1000); }
std::string gigabytes(int64_t count) {
  return fmt::format("{:.2f} GB ({})", static_cast<double>(count) * 1e-9, bytes(count));
}

void line(std::string_view name, int64_t count, std::string_view note = {}) {
  fmt::print("  {:<26} {:>12}  {}\n", name, bytes(count), note);
}

// The element types of a role's weights: "Q4_K Q6_K".
std::string types_of(const Model& model, Role role) {
  std::vector<std::string_view> names;
  for (const Graph* graph : {&model.text, &model.vision}) {
    for (const Weight& weight : graph->weights()) {
      const std::string_view name = format_info(weight.format).name;
      if (weight.role == role && weight.rows > 1 &&
          std::find(names.begin(), names.end(), name) == names.end())
        names.push_back(name);
    }
  }
  std::string out;
  for (const std::string_view name : names)
    out += (out.empty() ? "" : " ") + std::string(name);
  return out;
}

// "4 x 4,096 tokens of 114,688 bytes"; where layers keep a window only, how many of them do.
std::string cache_note(const PlanReport& report) {
  const RunShape& shape = report.run.memory.shape;
  const CacheSpec& cache = report.model.cache;
  std::string out =
      fmt::format("{}{} tokens", shape.parallel > 1 ? fmt::format("{} x ", shape.parallel) : "",
                  format_count(static_cast<uint64_t>(shape.context_tokens)));
  const auto sliding = std::count(cache.sliding.begin(), cache.sliding.end(), true);
  if (sliding > 0)
    return out + fmt::format("; {} of {} layers see the last {} and keep little more", sliding,
                             cache.layers, format_count(static_cast<uint64_t>(cache.window)));
  const int64_t tokens = std::max<int64_t>(shape.context_tokens * shape.parallel, 1);
  return out + fmt::format(" of {} bytes", format_count(static_cast<uint64_t>(
                                               report.run.memory.kv_cache_bytes / tokens)));
}

// "4,100 tokens of 32,768 bytes, in 8 of 40 layers".
std::string picture_cache_note(const PlanReport& report) {
  const MemoryPlan& m = report.run.memory;
  const CacheSpec& cache = report.model.cache;
  const int64_t tokens = std::max<int64_t>(m.shape.feature_tokens, 1);
  return fmt::format("{} tokens of {} bytes, in {} of {} layers",
                     format_count(static_cast<uint64_t>(tokens)),
                     format_count(static_cast<uint64_t>(m.picture_cache_bytes / tokens)),
                     cache.cross_layers(), cache.layers);
}

void print_memory(const PlanReport& report) {
  const MemoryPlan& m = report.run.memory;
  fmt::print("{}\n",
             bold("weights: mapped from the file, the kernel can drop them", STDOUT_FILENO));
  for (const RoleBytes& role : report.roles)
    line(role_name(role.role), role.bytes, types_of(report.model, role.role));
  fmt::print("{}\n", bold("anonymous: reserved before the first token", STDOUT_FILENO));
  std::string arena = fmt::format("prefill {}, decode {}", bytes(report.prefill_arena_bytes),
                                  bytes(report.decode_arena_bytes));
  if (m.vision.arena_bytes > 0)
    arena = fmt::format("encode {}, {}", bytes(m.vision.arena_bytes), arena);
  line("compute arena", m.arena_bytes,
       arena + (m.vision_offset_bytes > 0 ? ": encode beside the larger of the others"
                                          : ": the largest counts"));
  line("KV cache", m.kv_cache_bytes, cache_note(report));
  if (m.picture_cache_bytes > 0)
    line("picture cache", m.picture_cache_bytes, picture_cache_note(report));
  if (!report.run.pictures.empty()) {
    if (m.features_bytes > 0)
      line("picture embeddings", m.features_bytes);
    line("picture decoding", m.picture_io_bytes);
  }
  line("program and vocabulary", m.fixed_bytes);
  fmt::print("{}\n", bold("in all", STDOUT_FILENO));
  line("weights", m.mapped_bytes,
       m.looked_up_bytes > 0
           ? fmt::format("without the embedding's {}: its rows are read one by one",
                         bytes(m.looked_up_bytes))
           : "");
  line("anonymous", m.anonymous_bytes());
  line("program and headers", m.program_mapped_bytes, "mapped");
  const Offload& gpu = report.run.offload;
  if (gpu.limit_bytes > 0) {
    line("on the GPU", gpu.used_bytes,
         fmt::format("of {} that may be used", bytes(gpu.limit_bytes)));
    if (!report.place.unified)
      line("in RAM", report.run.needed_bytes());
  }
  if (gpu.limit_bytes == 0 || report.place.unified)
    line("needed", report.run.needed_bytes());
  if (gpu.limit_bytes == 0 && report.run.verdict() == Verdict::kFits)
    line("peak of a first question", report.run.first_question_bytes,
         "its answer fills the context");
  line(report.place.ram.source, report.place.ram.bytes);
}

void print_gpu(const PlanReport& report) {
  const Offload& gpu = report.run.offload;
  if (gpu.limit_bytes == 0)
    return;
  if (!gpu.any()) {
    fmt::print("  nothing of it on the GPU: what is left beside it does not fit in RAM\n");
    return;
  }
  fmt::print("{}: {} of {} layers{}{}\n  for programs that compute there (llama.cpp: -ngl {}); "
             "pinhole itself computes on the CPU\n",
             bold("on the GPU", STDOUT_FILENO), gpu.layers, gpu.total_layers,
             gpu.output ? ", the output matrix" : "", gpu.vision ? ", the vision part" : "",
             gpu.layers + (gpu.output ? 1 : 0));
  if (report.place.unified)
    fmt::print(
        "  of unified memory the GPU may use {:.0f} %; sysctl iogpu.wired_limit_mb raises it "
        "(--gpu-share 85)\n",
        100 * static_cast<double>(gpu.limit_bytes) / static_cast<double>(report.place.ram.bytes));
}

void print_verdict(const PlanReport& report) {
  const Residency& residency = report.run.residency;
  switch (report.run.verdict()) {
  case Verdict::kFits:
    fmt::print("{}: {} are left\n", bold("fits", STDOUT_FILENO),
               bytes(report.place.ram.bytes - report.run.needed_bytes()));
    break;
  case Verdict::kStreams:
    fmt::print("{}: {} of weights stay, {} are read from the disk again for every token, {} for "
               "every\n  picture, through a window of {}; {} are in memory at the most\n",
               bold("streams", STDOUT_FILENO), bytes(residency.resident_bytes),
               bytes(residency.streamed_text_bytes), bytes(residency.streamed_vision_bytes),
               bytes(residency.window_bytes), bytes(residency.peak_bytes(report.run.memory)));
    if (residency.expert_cache_bytes > 0)
      fmt::print("  of {} of experts {} are kept, the ones used last\n",
                 bytes(residency.expert_bytes), bytes(residency.expert_cache_bytes));
    break;
  case Verdict::kNone:
    fmt::print("{}: {}\n", bold("does not fit", STDOUT_FILENO), report.run.refusal);
    break;
  }
  print_gpu(report);
  if (report.longest_context_tokens > 0)
    fmt::print("  longest context: {} tokens{}\n",
               format_count(static_cast<uint64_t>(report.longest_context_tokens)),
               report.longest_context_tokens == report.model.context_length
                   ? ", all that the model was made for"
                   : "");
  else
    fmt::print("  no context fits beside the weights: take a smaller quantisation (--weights)\n");
  const Picture& picture = report.largest_picture;
  if (picture.tokens > 0)
    fmt::print("  largest picture (4:3): {}x{}, {} tokens\n", picture.width_px, picture.height_px,
               format_count(static_cast<uint64_t>(picture.tokens)));
}

// Tokens a second of all conversations together.
double rate(const PlannedRun& run, double step_seconds) {
  return static_cast<double>(run.question.parallel) / step_seconds;
}

std::string pictures_of(const PlannedRun& run) {
  std::string out;
  for (const Picture& picture : run.pictures)
    out += fmt::format("{}{}x{}", out.empty() ? "" : " ", picture.width_px, picture.height_px);
  return out.empty() ? "none" : out;
}

void print_options(const PlanReport& report) {
  if (report.options.empty())
    return;
  const bool gpu = report.place.gpu_bytes > 0;
  fmt::print("{}\n  {:<26} {:<11} {:>9}  {:<11} {:<8} {:>10} {:>10} {:>8}{}\n",
             bold("what would do", STDOUT_FILENO), "", "weights", "context", "picture", "", "RAM",
             "1st token", "tokens/s", gpu ? "        GPU  layers" : "");
  for (const PlanOption& option : report.options) {
    const Offload& offload = option.run.offload;
    fmt::print("  {:<26} {:<11} {:>9}  {:<11} {:<8} {:>10} {:>10} {:>8.1f}{}\n", option.what,
               option.weights, format_count(static_cast<uint64_t>(option.context_tokens)),
               pictures_of(option.run), verdict_name(option.run.verdict()),
               bytes(option.run.verdict() == Verdict::kStreams
                         ? option.run.residency.peak_bytes(option.run.memory)
                         : option.run.needed_bytes()),
               seconds(option.speed.first_token_seconds()),
               rate(option.run, option.speed.decode_seconds),
               gpu ? fmt::format(" {:>10} {:>4}/{}", bytes(offload.used_bytes), offload.layers,
                                 offload.total_layers)
                   : "");
  }
}

void print_speed(const PlanReport& report) {
  const KernelRates& rates = report.rates;
  const SpeedPlan& speed = report.speed;
  const bool streams = report.run.residency.streams();
  if (report.place.machine) {
    fmt::print("{} {}: estimated from published figures, not measured\n",
               bold("time on", STDOUT_FILENO), report.place.machine->description);
  } else {
    fmt::print("{} {} threads, {}, memory read at {:.0f} GB/s\n",
               bold("time on this machine", STDOUT_FILENO), rates.num_threads, rates.isa,
               rates.read_gb_per_s);
    if (streams && rates.disk_gb_per_s > 0)
      fmt::print("  weights stream at {:.1f} GB/s from this disk\n", rates.disk_gb_per_s);
    if (streams && rates.disk_gb_per_s == 0)
      fmt::print("  without the time for streaming: there is no file to measure\n");
    if (report.run.offload.any())
      fmt::print("  with a GPU like {} (--machine names another)\n", report.place.gpu.description);
  }
  for (const Picture& picture : report.run.pictures) {
    fmt::print("  picture {:<18} read at {}x{}, {} tokens{}\n", picture.name, picture.target.width,
               picture.target.height, picture.tokens,
               report.model.cache.has_cross()
                   ? fmt::format(", {} in the picture cache", picture.feature_tokens())
                   : "");
  }
  const bool reads = report.uncached_bytes > 0 && !streams;
  fmt::print("  {:<26} {:>12}{}\n", "map the weights", seconds(speed.map_seconds),
             reads ? fmt::format("  {} of them from the disk", bytes(report.uncached_bytes)) : "");
  fmt::print("  {:<26} {:>12}\n", "clear reserved memory", seconds(speed.touch_seconds));
  if (!report.run.pictures.empty())
    fmt::print("  {:<26} {:>12}\n", "start, read the pictures", seconds(speed.picture_seconds));
  if (!report.run.pictures.empty())
    fmt::print("  {:<26} {:>12}\n", "encode the pictures", seconds(speed.encode_seconds));
  fmt::print("  {:<26} {:>12}  {} tokens\n", "read the prompt", seconds(speed.prefill_seconds),
             report.run.question.prompt_tokens);
  fmt::print("  {:<26} {:>12}\n", "first token", seconds(speed.first_token_seconds()));
  fmt::print("  {:<26} {:>10.1f}/s  {:.1f}/s in a full context\n", "tokens",
             rate(report.run, speed.decode_seconds), rate(report.run, speed.decode_full_seconds));
}

} // namespace

void print_report(const PlanReport& report) {
  const Model& model = report.model;
  fmt::print("{}  {}, {:.2f} billion parameters, {} layers{}\n", bold(model.name, STDOUT_FILENO),
             model.family, static_cast<double>(report.transformers.parameters) * 1e-9,
             model.cache.layers, report.config_only ? "; from its configuration alone" : "");
  print_memory(report);
  print_verdict(report);
  print_speed(report);
  print_options(report);
}

void print_layers(const PlanReport& report) {
  const bool gpu = report.run.offload.any();
  fmt::print("{}\n  {:<8} {:>12} {:>13} {:>13} {:>13} {:>13}\n",
             bold("layers of the text part", STDOUT_FILENO), "layer", "weights", "from disk",
             gpu ? "to the GPU" : "", "prompt", "a token");
  const auto ms = [](double value, int digits) {
    return value > 0 ? fmt::format("{:.{}f} ms", 1000 * value, digits) : std::string("-");
  };
  for (const BlockCost& block : report.speed.blocks) {
    fmt::print("  {:<8} {:>12} {:>13} {:>13} {:>13} {:>13}\n",
               block.block < 0 ? "outside" : fmt::format("{}", block.block),
               bytes(static_cast<int64_t>(block.weight_bytes)), ms(block.disk_seconds, 2),
               gpu ? ms(block.link_seconds, 2) : "", ms(block.prefill_seconds, 2),
               ms(block.decode_seconds, 3));
  }
}

void print_explanation(const PlanReport& report) {
  const Model& model = report.model;
  const CacheSpec& cache = model.cache;
  const TransformersFootprint& t = report.transformers;
  const int64_t per_token = kv_bytes_per_token(cache, kernels::KvType::kF16);
  const int64_t naive = 2 * cache.layers * model.hidden_size * 2;
  fmt::print("{}\n", bold("why", STDOUT_FILENO));
  fmt::print(
      "KV cache. Each layer keeps a key and a value of every token in the context, so that a "
      "new token\nneed not read the old ones again. Here a token takes 2 x {} layers x {} kv "
      "heads x {} numbers:\n{} bytes in f16. The formula that is often quoted, 2 x layers x "
      "hidden_size x bytes, gives {}:\n{:.1f} times as many, since several query heads share "
      "one key here.\n",
      cache.layers - cache.cross_layers(), cache.kv_heads, cache.head_dim,
      format_count(static_cast<uint64_t>(per_token)), format_count(static_cast<uint64_t>(naive)),
      static_cast<double>(naive) / static_cast<double>(per_token));
  if (cache.has_cross()) {
    fmt::print(
        "The other {} layers keep keys and values of pictures, {} bytes of each of a picture's "
        "tokens, once,\nhowever long the conversation is.\n",
        cache.cross_layers(),
        format_count(static_cast<uint64_t>(picture_bytes_per_token(cache, kernels::KvType::kF16))));
  }
  const auto sliding = std::count(cache.sliding.begin(), cache.sliding.end(), true);
  if (sliding > 0) {
    fmt::print("{} of the layers see {} tokens back and keep no more than these, a chunk and {} to "
               "spare.\n",
               sliding, cache.window, kSpareTokens);
  }
  fmt::print(
      "4 bits. {:.2f} billion parameters at half a byte would be {}. Only the {:.2f} billion "
      "in\nlinear layers become 4-bit numbers in bitsandbytes (nf4); embeddings, the output "
      "matrix, norms{}\nstay at 16 bits, which makes {} and {} of scales.\n",
      static_cast<double>(t.parameters) * 1e-9, gigabytes(t.parameters / 2),
      static_cast<double>(t.linear) * 1e-9,
      t.parameters - t.linear > 2 * t.linear ? " and, here, the experts" : "",
      gigabytes(t.nf4_bytes()), bytes(t.nf4_constant_bytes()));
  fmt::print(
      "transformers holds {} in float32, {} in bfloat16, all of it\nanonymous memory. Here "
      "weights stay mapped: {} that the kernel can drop and read again, and {}\nanonymous.\n",
      gigabytes(t.float32_bytes()), gigabytes(t.bfloat16_bytes()),
      bytes(report.run.memory.mapped_bytes), bytes(report.run.memory.anonymous_bytes()));
  for (const Picture& picture : report.run.pictures) {
    int64_t heads = 0;
    for (const Op& op : model.vision.ops())
      heads = op.kind == OpKind::kAttention ? op.heads : heads;
    const int64_t patches = picture.grid.patches();
    fmt::print("Attention scores. {} patches that look at each other in {} heads are {} x {}^2 x 4 "
               "bytes =\n{} when they are written down, as plain attention does for {}. Here they "
               "are\nmade block by block and never stored.\n",
               patches, heads, heads, patches, gigabytes(heads * patches * patches * 4),
               picture.name);
  }
}

void print_comparison(const std::vector<PlanReport>& reports) {
  fmt::print("{:<32} {:>12} {:>12} {:>12} {:<13} {:>10} {:>10}\n", "model", "weights", "anonymous",
             "needed", "", "1st token", "tokens/s");
  for (const PlanReport& report : reports) {
    fmt::print("{:<32} {:>12} {:>12} {:>12} {:<13} {:>10} {:>10.1f}\n",
               report.model.name.substr(0, 32), bytes(report.run.memory.mapped_bytes),
               bytes(report.run.memory.anonymous_bytes()), bytes(report.run.needed_bytes()),
               verdict_name(report.run.verdict()), seconds(report.speed.first_token_seconds()),
               rate(report.run, report.speed.decode_seconds));
  }
  if (!reports.empty())
    fmt::print("{}: {}\n", reports[0].place.ram.source, bytes(reports[0].place.ram.bytes));
}

} // namespace pinhole::cli
