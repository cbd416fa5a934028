// pinhole perf: where the time of a model goes on this machine, stage by stage, beside what the
// machine can do at most (measured in the same run).
#include "answer/loaded_model.h"
#include "answer/picture.h"
#include "base/units.h"
#include "cli/common.h"
#include "engine/session.h"
#include "image/image.h"
#include "plan/machine.h"
#include "plan/work.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <unistd.h>

namespace pinhole::cli {

namespace {

struct PerfOptions {
  std::string model, mmproj;
  std::string image = "1024x768";
  std::vector<int64_t> prompts = {512, 1024};
  std::vector<int64_t> depths = {0, 1024};
  int64_t decode_tokens = 16;
  int64_t chunk_tokens = 0; // 0: the longest prompt at once
  int rounds = 3;
  bool machine_only = false;
  bool json = false;
  ComputeOptions compute;
};

// One kind of op within a stage.
struct Line {
  std::string name;
  double seconds = 0;
  Work work;
};

struct Stage {
  std::string name;
  int64_t tokens = 0;       // what a rate counts: prompt or generated tokens, patches
  double first_seconds = 0; // with the files' pages not yet mapped
  double seconds = 0;       // median of the later rounds
  double read_gb_per_s = 0; // what its bytes are held against
  Work work;                // of one run
  std::vector<Line> lines;  // largest first
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

// What an op is called in the table: matmuls by the role and shape of their weights.
std::string line_name(const Graph& graph, const Op& op) {
  if (op.kind != OpKind::kMatmul)
    return std::string(op_name(op.kind));
  const Weight& first = graph.weight(op.parts.front().weight);
  int64_t n = 0;
  for (const MatmulPart& part : op.parts)
    n += graph.weight(part.weight).rows;
  return fmt::format("{} {}x{} {}", role_name(first.role), n, first.cols,
                     format_info(first.format).name);
}

// Collects the time and work of every run of a graph.
class StageClock {
 public:
  StageClock(std::string name, const Graph& graph, CpuBackend& backend)
      : graph_(graph), backend_(backend) {
    stage_.name = std::move(name);
    op_seconds_.assign(graph.ops().size(), 0.0);
  }

  // Runs `work` once; `count`: it belongs to the result (the first round does not).
  template <class F> Status round(bool count, F work) {
    std::vector<double> ops(op_seconds_.size(), 0.0);
    backend_.set_profile(&ops);
    const auto start = std::chrono::steady_clock::now();
    Status done = work();
    const double seconds = seconds_since(start);
    backend_.set_profile(nullptr);
    if (!count) {
      stage_.first_seconds = seconds;
      return done;
    }
    rounds_.push_back(seconds);
    for (size_t i = 0; i < ops.size(); ++i)
      op_seconds_[i] += ops[i];
    return done;
  }

  // Adds one run of the graph to the work of a round.
  void add_work(const WorkShape& shape) { shapes_.push_back(shape); }

  Stage finish(int64_t tokens, double read_gb_per_s) {
    stage_.tokens = tokens;
    stage_.read_gb_per_s = read_gb_per_s;
    stage_.seconds = median(rounds_);
    for (size_t i = 0; i < graph_.ops().size(); ++i) {
      const Op& op = graph_.ops()[i];
      const std::string name = line_name(graph_, op);
      auto line = std::find_if(stage_.lines.begin(), stage_.lines.end(),
                               [&](const Line& other) { return other.name == name; });
      if (line == stage_.lines.end())
        line = stage_.lines.insert(line, Line{name, 0, {}});
      line->seconds += op_seconds_[i] / static_cast<double>(std::max<size_t>(rounds_.size(), 1));
      for (const WorkShape& shape : shapes_)
        line->work += op_work(graph_, op, shape);
    }
    for (const Line& line : stage_.lines)
      stage_.work += line.work;
    std::sort(stage_.lines.begin(), stage_.lines.end(),
              [](const Line& a, const Line& b) { return a.seconds > b.seconds; });
    return std::move(stage_);
  }

 private:
  const Graph& graph_;
  CpuBackend& backend_;
  Stage stage_;
  std::vector<double> op_seconds_, rounds_;
  std::vector<WorkShape> shapes_;
};

class PerfCommand {
 public:
  explicit PerfCommand(PerfOptions options) : options_(std::move(options)) {}

  int run() {
    auto kernels = options_.compute.resolve();
    if (!kernels)
      return report(kernels.error());
    kernels_ = *kernels;
    if (!options_.machine_only) {
      if (const Status status = load(); !status)
        return report(status.error());
    }
    {
      ThreadPool threads(kernels_.num_threads);
      machine_ = measure_machine(*kernels_.table, threads);
    }
    if (!options_.json)
      print_machine();
    if (!options_.machine_only) {
      if (const Status status = measure_model(); !status)
        return report(status.error());
    }
    if (options_.json)
      fmt::print("{}\n", to_json().dump(2));
    return kExitOk;
  }

 private:
  Status load() {
    if (options_.model.empty()) {
      PINHOLE_TRY(options_.model, default_model());
    }
    PINHOLE_TRY(loaded_, load_model(options_.model, options_.mmproj));
    if (loaded_->model.pictures) {
      PINHOLE_TRY(grid_, grid_of(*loaded_->model.pictures));
    }
    return {};
  }

  Status measure_model() {
    const Model& model = loaded_->model;
    SessionOptions session;
    session.kernels = kernels_;
    RunShape& shape = session.shape;
    shape.max_patches = grid_.patches();
    shape.feature_tokens = grid_.tokens();
    int64_t longest = 1;
    for (const int64_t tokens : options_.prompts)
      longest = std::max(longest, tokens);
    shape.chunk_tokens = options_.chunk_tokens > 0 ? options_.chunk_tokens : longest;
    for (const int64_t depth : options_.depths)
      longest = std::max(longest, depth + options_.decode_tokens);
    shape.context_tokens = longest + 1;
    PINHOLE_TRY(session_, Session::create(model, session));
    if (model.pictures)
      PINHOLE_CHECK(measure_picture());
    for (const int64_t tokens : options_.prompts)
      PINHOLE_CHECK(measure_prefill(tokens));
    for (const int64_t depth : options_.depths)
      PINHOLE_CHECK(measure_decode(depth));
    return {};
  }

  Result<PatchGrid> grid_of(const PictureSpec& spec) const {
    PINHOLE_TRY(Size size, parse_size(options_.image));
    PINHOLE_TRY(const Picture picture, plan_picture(size.width, size.height, "--image", spec, {}));
    return picture.grid;
  }

  Status measure_picture() {
    const PictureSpec& spec = *loaded_->model.pictures;
    StageClock clock(
        fmt::format("picture {}x{}", grid_.width * spec.patch_size, grid_.height * spec.patch_size),
        loaded_->model.vision, session_->backend());
    // Speed does not depend on the pixels, as long as they differ.
    const auto noise = [&](int64_t begin, int64_t end, float* out) {
      for (int64_t i = 0; i < (end - begin) * spec.patch_elements(); ++i)
        out[i] = static_cast<float>((i + begin) * 2654435761 % 2001 - 1000) * 1e-3f;
    };
    for (int i = 0; i <= options_.rounds; ++i) {
      Sha256Digest digest{};
      digest[0] = static_cast<uint8_t>(i + 1);
      PINHOLE_CHECK(clock.round(i > 0, [&]() -> Status {
        PINHOLE_CHECK(session_->encode(digest, grid_, noise, {}, &interrupted()));
        return {};
      }));
    }
    WorkShape shape;
    shape.rows = {grid_.patches(), 0};
    const int64_t window = spec.window_size_px / spec.patch_size;
    shape.window_keys = window * window;
    clock.add_work(shape);
    add(clock.finish(grid_.patches(), machine_.read.all_threads));
    return {};
  }

  std::vector<PromptToken> prompt(int64_t tokens) const {
    std::vector<PromptToken> out(static_cast<size_t>(tokens));
    for (int64_t i = 0; i < tokens; ++i) {
      PromptToken& token = out[static_cast<size_t>(i)];
      token.id = static_cast<int32_t>(i * 7919 % loaded_->model.vocab_size);
      token.position.fill(static_cast<int32_t>(i));
    }
    return out;
  }

  Status measure_prefill(int64_t tokens) {
    StageClock clock(fmt::format("prefill {}", tokens), loaded_->model.text, session_->backend());
    const std::vector<PromptToken> words = prompt(tokens);
    for (int i = 0; i <= options_.rounds; ++i) {
      session_->truncate(0);
      PINHOLE_CHECK(clock.round(i > 0, [&]() -> Status {
        PINHOLE_CHECK(session_->prefill(words, &interrupted()));
        return {};
      }));
    }
    const int64_t chunk = session_->plan().shape.chunk_tokens;
    for (int64_t past = 0; past < tokens; past += chunk) {
      const int64_t count = std::min(chunk, tokens - past);
      clock.add_work(text_shape(count, past + count == tokens ? 1 : 0, past));
    }
    add(clock.finish(tokens, machine_.read.all_threads));
    return {};
  }

  WorkShape text_shape(int64_t tokens, int64_t outputs, int64_t past) const {
    WorkShape shape;
    shape.rows = {tokens, outputs};
    shape.past_tokens = past;
    shape.kv_type = kernels_.kv_type;
    return shape;
  }

  Status measure_decode(int64_t depth) {
    StageClock clock(fmt::format("decode after {}", depth), loaded_->model.text,
                     session_->backend());
    session_->truncate(0);
    const double read_before = read_now();
    const int64_t count = options_.decode_tokens;
    const std::vector<PromptToken> words = prompt(depth + count);
    if (depth > 0) {
      PINHOLE_CHECK(
          session_->prefill(std::span(words).first(static_cast<size_t>(depth)), &interrupted()));
    }
    for (int i = 0; i <= options_.rounds; ++i) {
      session_->truncate(depth);
      PINHOLE_CHECK(clock.round(i > 0, [&]() -> Status {
        for (int64_t j = 0; j < count; ++j) {
          PINHOLE_CHECK(session_->step(words[static_cast<size_t>(depth + j)], &interrupted()));
        }
        return {};
      }));
    }
    for (int64_t j = 0; j < count; ++j)
      clock.add_work(text_shape(1, 1, depth + j));
    // The rate may change while tokens are decoded: the larger one counts.
    add(clock.finish(count, std::max(read_before, read_now())));
    return {};
  }

  double read_now() {
    return measure_read(*kernels_.table, session_->backend().threads()).all_threads;
  }

  // --- the report ---

  // The fastest arithmetic that the kernels may use for many rows; f32 when it must be exact.
  const MachineRate& fastest() const {
    const MachineRate* best = &machine_.arithmetic.front();
    for (const MachineRate& rate : machine_.arithmetic) {
      // Tiles multiply bf16; without them integer formats are multiplied as int8.
      const bool has_tiles = machine_.ops("bf16 tiles") > 0;
      const bool usable = rate.name == (has_tiles ? "bf16 tiles" : "int8");
      if (usable && !kernels_.exact && rate.all_threads > best->all_threads)
        best = &rate;
    }
    return *best;
  }

  void print_machine() const {
    fmt::print("{:<24} {:>12} {:>12}\n", fmt::format("this machine ({})", machine_.isa), "1 thread",
               fmt::format("{} threads", machine_.num_threads));
    const auto print = [](const MachineRate& rate, const char* unit) {
      fmt::print("  {:<22} {:>12.1f} {:>12.1f} {}\n", rate.name, rate.one_thread, rate.all_threads,
                 unit);
    };
    print(machine_.read, "GB/s");
    for (const MachineRate& rate : machine_.arithmetic)
      print(rate, "Gop/s");
  }

  void add(Stage stage) {
    if (!options_.json)
      print(stage);
    stages_.push_back(std::move(stage));
  }

  void print_line(const std::string& name, double seconds, const Work& work,
                  double read_gb_per_s) const {
    const double gflops = work.flops * 1e-9;
    const double gb = (work.weight_bytes + work.cache_bytes) * 1e-9;
    fmt::print("  {:<34} {:>9.1f}", name, seconds * 1e3);
    if (gflops > 0 && seconds > 0) {
      fmt::print(" {:>9.1f} {:>9.1f} {:>5.0f}% {:>9.1f} {:>7.1f} {:>5.0f}%", gflops,
                 gflops / seconds, 100 * gflops / seconds / fastest().all_threads, gb * 1e3,
                 gb / seconds, 100 * gb / seconds / read_gb_per_s);
    }
    fmt::print("\n");
  }

  void print(const Stage& stage) const {
    fmt::print("\n{}", bold(stage.name, STDOUT_FILENO));
    if (stage.tokens > 0 && stage.seconds > 0) {
      fmt::print(": {} ({:.1f} a second), {} the first time", format_millis(stage.seconds * 1e3),
                 static_cast<double>(stage.tokens) / stage.seconds,
                 format_millis(stage.first_seconds * 1e3));
    }
    fmt::print("\n  {:<34} {:>9} {:>9} {:>9} {:>6} {:>9} {:>7} {:>6}\n", "", "ms", "GFLOP",
               "GFLOP/s", "share", "MB", "GB/s", "share");
    print_line("all", stage.seconds, stage.work, stage.read_gb_per_s);
    for (const Line& line : stage.lines)
      print_line(line.name, line.seconds, line.work, stage.read_gb_per_s);
    std::fflush(stdout);
  }

  static Json rate_to_json(const MachineRate& rate) {
    return {
        {"name", rate.name}, {"one_thread", rate.one_thread}, {"all_threads", rate.all_threads}};
  }

  Json work_to_json(double seconds, const Work& work, double read_gb_per_s) const {
    const double rate = seconds > 0 ? 1e-9 / seconds : 0;
    return {{"ms", seconds * 1e3},
            {"flops", work.flops},
            {"weight_bytes", work.weight_bytes},
            {"cache_bytes", work.cache_bytes},
            {"share_of_arithmetic", work.flops * rate / fastest().all_threads},
            {"share_of_read", (work.weight_bytes + work.cache_bytes) * rate / read_gb_per_s}};
  }

  Json to_json() const {
    Json arithmetic = Json::array();
    for (const MachineRate& rate : machine_.arithmetic)
      arithmetic.push_back(rate_to_json(rate));
    Json stages = Json::array();
    for (const Stage& stage : stages_) {
      Json lines = Json::array();
      for (const Line& line : stage.lines) {
        Json row = work_to_json(line.seconds, line.work, stage.read_gb_per_s);
        row["name"] = line.name;
        lines.push_back(std::move(row));
      }
      Json row = work_to_json(stage.seconds, stage.work, stage.read_gb_per_s);
      row["name"] = stage.name;
      row["count"] = stage.tokens;
      row["read_gb_per_s"] = stage.read_gb_per_s;
      row["first_ms"] = stage.first_seconds * 1e3;
      row["ops"] = std::move(lines);
      stages.push_back(std::move(row));
    }
    return {{"isa", machine_.isa},
            {"threads", machine_.num_threads},
            {"read_gb_per_s", rate_to_json(machine_.read)},
            {"arithmetic_gop_per_s", std::move(arithmetic)},
            {"ceiling", fastest().name},
            {"stages", std::move(stages)}};
  }

  PerfOptions options_;
  KernelChoice kernels_;
  Machine machine_;
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<Session> session_;
  PatchGrid grid_;
  std::vector<Stage> stages_;
};

} // namespace

void add_perf(CLI::App& app, int& exit) {
  auto options = std::make_shared<PerfOptions>();
  CLI::App* sub =
      app.add_subcommand("perf", "Where a model's time goes, beside what the machine can do");
  sub->add_option("-m,--model", options->model,
                  "A .gguf file or a Hugging Face folder (default: the bundled model)");
  sub->add_option("--mmproj", options->mmproj, "The projector file");
  sub->add_option("--image", options->image, "Picture size, WIDTHxHEIGHT")->capture_default_str();
  sub->add_option("--prompt", options->prompts, "Prompt lengths, in tokens")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  sub->add_option("--depth", options->depths, "Tokens in the context before decoding")
      ->delimiter(',')
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  sub->add_option("-n", options->decode_tokens, "Tokens decoded in a round")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  sub->add_option("--chunk", options->chunk_tokens,
                  "Tokens of a prefill step (default: the longest prompt)")
      ->check(CLI::Range(1, 1 << 20));
  sub->add_option("--rounds", options->rounds, "Rounds that count, after a first one")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  sub->add_flag("--machine", options->machine_only, "Only the machine's ceilings");
  sub->add_flag("--json", options->json, "Machine-readable output");
  options->compute.add_to(*sub);
  sub->footer("Examples:\n"
              "  pinhole perf --machine\n"
              "  pinhole perf -m Qwen3-VL-2B-Q4_K_M.gguf --image 1024x768 --prompt 1024\n"
              "  PINHOLE_ISA=avx2 pinhole perf --json > perf.json");
  sub->callback([options, &exit] { exit = PerfCommand(*options).run(); });
}

} // namespace pinhole::cli
