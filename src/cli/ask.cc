// pinhole ask: a question about pictures, answered as it is generated; a chat when no question is
// given.
#include "answer/answerer.h"
#include "base/mapped_file.h"
#include "base/units.h"
#include "cli/common.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fmt/format.h>
#include <unistd.h>

namespace pinhole::cli {

namespace {

constexpr int64_t kChatContext = 8192; // of an interactive chat, unless --ctx says otherwise
constexpr uint64_t kMaxPictureBytes = 64 << 20;

struct AskOptions {
  std::string model, mmproj, question, system;
  std::vector<std::string> images;
  AnswerOptions answer;
  std::vector<std::string> choices;
  std::string regex, json_schema;
  PictureOptions picture;
  ComputeOptions compute;
  int64_t context_tokens = 0;
  int64_t chunk_tokens = 512;
  std::string ram;
  bool json = false;
  bool verbose = false;
};

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// --choices, --regex or --json-schema; none of them: no grammar.
Result<std::optional<Grammar>> read_grammar(const AskOptions& options) {
  const auto named = [](const char* option,
                        Result<Grammar> grammar) -> Result<std::optional<Grammar>> {
    if (!grammar)
      return fail_in(option, grammar.error());
    return std::move(*grammar);
  };
  if (!options.choices.empty())
    return named("--choices", Grammar::from_choices(options.choices));
  if (!options.regex.empty())
    return named("--regex", Grammar::from_regex(options.regex));
  if (options.json_schema.empty())
    return std::nullopt;
  PINHOLE_TRY(const Json schema, read_json_file(options.json_schema, Grammar::kMaxSourceBytes));
  return named(options.json_schema.c_str(), Grammar::from_json_schema(schema));
}

Result<std::vector<Picture>> open_pictures(const AskOptions& options, const LoadedModel& loaded) {
  std::vector<Picture> pictures;
  for (const std::string& path : options.images) {
    if (!loaded.model.pictures) {
      return fail(ErrorCode::kUnsupported, "this model has no vision part",
                  loaded.files.text.path(), "give its projector with --mmproj");
    }
    const bool from_stdin = path == "-";
    PINHOLE_TRY(std::string bytes,
                from_stdin ? read_stream(STDIN_FILENO, "standard input", kMaxPictureBytes)
                           : read_text_file(path, kMaxPictureBytes));
    PINHOLE_TRY(Picture picture,
                open_picture(std::move(bytes), from_stdin ? "standard input" : path,
                             *loaded.model.pictures, options.picture));
    if (options.verbose) {
      fmt::print(stderr, "{}: {} x {} px, read at {} x {}: {} tokens\n", picture.name,
                 picture.width_px, picture.height_px, picture.target.width, picture.target.height,
                 picture.tokens);
    }
    pictures.push_back(std::move(picture));
  }
  return pictures;
}

Json to_json(const Answer& answer, const Answerer& answerer, int64_t grammar_bytes, double load_ms,
             const MemoryUse& memory) {
  const AnswerTimings& t = answer.timings;
  const double decode_s = t.decode / 1000;
  Json out;
  out["answer"] = answer.text;
  out["finish_reason"] = finish_reason_name(answer.finish);
  out["model"] = answerer.loaded().model.name;
  out["tokens"] = {{"prompt", answer.prompt_tokens},
                   {"picture", answer.picture_tokens},
                   {"generated", answer.generated_tokens},
                   {"reused", answer.reused_tokens}};
  out["token_ids"] = answer.ids;
  out["timings_ms"] = {
      {"load", load_ms},      {"picture", t.picture},         {"encode", t.encode},
      {"prefill", t.prefill}, {"first_token", t.first_token}, {"decode", t.decode}};
  out["tokens_per_second"] = answer.generated_tokens > 1 && decode_s > 0
                                 ? Json(static_cast<double>(answer.generated_tokens - 1) / decode_s)
                                 : Json(nullptr);
  const Session& session = answerer.session();
  out["memory_bytes"] = {{"planned", session.anonymous_bytes() + grammar_bytes},
                         {"anon_peak", memory.anonymous},
                         {"mapped", session.plan().mapped_bytes},
                         {"resident_peak", memory.peak}};
  return out;
}

class AskCommand {
 public:
  explicit AskCommand(AskOptions options) : options_(std::move(options)) {}

  int run() {
    const double start = now_ms();
    auto grammar = read_grammar(options_);
    if (!grammar)
      return report(grammar.error());
    options_.answer.grammar = std::move(*grammar);
    if (options_.model.empty()) {
      auto path = default_model();
      if (!path)
        return report(path.error());
      options_.model = *path;
    }
    auto loaded = load_model(options_.model, options_.mmproj);
    if (!loaded)
      return report(loaded.error());
    loaded_ = std::move(*loaded);
    auto kernels = options_.compute.resolve();
    if (!kernels)
      return report(kernels.error());
    kernels_ = *kernels;
    const double files_ms = now_ms() - start;

    const bool stdin_is_picture =
        std::find(options_.images.begin(), options_.images.end(), "-") != options_.images.end();
    auto pictures = open_pictures(options_, *loaded_);
    if (!pictures)
      return report(pictures.error());
    pictures_ = std::move(*pictures);

    if (options_.question.empty() && !stdin_is_picture && is_terminal(STDIN_FILENO)) {
      return chat(files_ms);
    }
    if (options_.question.empty() && !stdin_is_picture) {
      auto text = read_stream(STDIN_FILENO, "standard input", 16 << 20);
      if (!text)
        return report(text.error());
      options_.question = *text;
    }
    if (options_.question.empty()) {
      return report({ErrorCode::kInvalidInput,
                     "no question was given",
                     {},
                     "pinhole ask -i picture.jpg \"What is this?\""});
    }
    std::vector<ChatTurn> turns = first_turns();
    turns.push_back(user_turn(options_.question));
    if (const int code = prepare(turns, options_.answer.max_new_tokens))
      return code;
    load_ms_ = files_ms + create_ms_;
    Answer answer;
    return ask(turns, answer);
  }

 private:
  std::vector<ChatTurn> first_turns() const {
    if (options_.system.empty())
      return {};
    return {{"system", options_.system, {}}};
  }

  ChatTurn user_turn(const std::string& text) {
    ChatTurn turn{"user", text, {}};
    if (!pictures_sent_) {
      for (size_t i = 0; i < pictures_.size(); ++i)
        turn.pictures.push_back(i);
    }
    pictures_sent_ = true;
    return turn;
  }

  // Reserves the session. The context is --ctx, or what this prompt and its answer need.
  int prepare(std::span<const ChatTurn> turns, int64_t new_tokens) {
    const double start = now_ms();
    Answerer::Limits limits;
    limits.context_tokens = options_.context_tokens;
    limits.chunk_tokens = options_.chunk_tokens;
    auto memory = memory_budget(options_.ram);
    if (!memory)
      return report(memory.error());
    limits.memory_bytes = memory->bytes;
    if (options_.answer.grammar) {
      grammar_bytes_ = GrammarMatcher::memory_bound(*options_.answer.grammar, loaded_->tokenizer);
      limits.memory_bytes = std::max<int64_t>(1, limits.memory_bytes - grammar_bytes_);
    }
    if (limits.context_tokens == 0) {
      auto ids = count_prompt(*loaded_, turns, pictures_);
      if (!ids)
        return report(ids.error());
      limits.context_tokens = static_cast<int64_t>(ids->size()) + new_tokens;
      limits.chunk_tokens = std::min(limits.chunk_tokens, static_cast<int64_t>(ids->size()));
    }
    auto answerer = Answerer::create(*loaded_, limits, pictures_, kernels_);
    if (!answerer)
      return report(answerer.error());
    answerer_ = std::move(*answerer);
    create_ms_ = now_ms() - start;
    if (options_.verbose)
      print_plan();
    return kExitOk;
  }

  void print_plan() const {
    const MemoryPlan& plan = answerer_->session().plan();
    fmt::print(stderr, "kernels: {}{}, {} threads; context {} tokens\n", kernels_.table->isa,
               kernels_.exact ? " (exact)" : "", kernels_.num_threads, plan.shape.context_tokens);
    for (const MemoryPart& part : plan.parts()) {
      fmt::print(stderr, "planned {:<24} {:>12}\n", part.name,
                 format_bytes(static_cast<uint64_t>(part.bytes)));
    }
    if (grammar_bytes_ > 0) {
      fmt::print(stderr, "planned {:<24} {:>12}\n", "structured answer, at most",
                 format_bytes(static_cast<uint64_t>(grammar_bytes_)));
    }
    fmt::print(stderr, "planned {:<24} {:>12} (and {} of weights, mapped)\n", "anonymous in all",
               format_bytes(static_cast<uint64_t>(plan.anonymous_bytes() + grammar_bytes_)),
               format_bytes(static_cast<uint64_t>(plan.mapped_bytes)));
    const Residency& residency = answerer_->session().residency();
    if (residency.streams()) {
      fmt::print(
          stderr,
          "limit {}: {} of weights stay, {} are read again for every token, through a window "
          "of {}\n",
          format_bytes(static_cast<uint64_t>(residency.limit_bytes)),
          format_bytes(static_cast<uint64_t>(residency.resident_bytes)),
          format_bytes(static_cast<uint64_t>(residency.streamed_text_bytes)),
          format_bytes(static_cast<uint64_t>(residency.window_bytes)));
      if (residency.expert_cache_bytes > 0)
        fmt::print(stderr, "of {} of experts {} are kept, the ones used last\n",
                   format_bytes(static_cast<uint64_t>(residency.expert_bytes)),
                   format_bytes(static_cast<uint64_t>(residency.expert_cache_bytes)));
    }
  }

  int ask(std::span<const ChatTurn> turns, Answer& out) {
    MemoryUse peak;
    ProgressLine progress(!options_.json);
    // Reading it takes some ten microseconds: not for every token.
    constexpr auto kSamplePause = std::chrono::milliseconds(5);
    auto last_sample = std::chrono::steady_clock::time_point{};
    const auto sample = [&] {
      const auto time = std::chrono::steady_clock::now();
      if (time - last_sample < kSamplePause)
        return;
      last_sample = time;
      const MemoryUse now = memory_use();
      peak = {std::max(peak.anonymous, now.anonymous), std::max(peak.file, now.file), now.peak};
    };
    const auto on_text = [&](std::string_view text) {
      progress.clear();
      if (options_.json)
        return;
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    };
    const auto on_progress = [&](std::string_view stage, int64_t done, int64_t total) {
      sample();
      progress.update(stage, done, total, "tokens");
    };
    const AnswerEvents events{on_text, on_progress};
    auto answer = answerer_->answer(turns, pictures_, options_.answer, options_.picture, events,
                                    &interrupted());
    progress.clear();
    last_sample = {};
    sample();
    if (!answer) {
      if (answer.error().code == ErrorCode::kCancelled && !options_.json)
        fmt::print("\n");
      return report(answer.error());
    }
    if (options_.json) {
      fmt::print("{}\n", to_json(*answer, *answerer_, grammar_bytes_, load_ms_, peak)
                             .dump(2, ' ', false, Json::error_handler_t::replace));
    } else {
      fmt::print("\n");
    }
    if (options_.verbose)
      print_timings(*answer, peak);
    if (answer->finish == FinishReason::kContext) {
      fmt::print(stderr,
                 "pinhole: the answer was cut because the context of {} tokens is full; "
                 "raise --ctx\n",
                 answerer_->session().plan().shape.context_tokens);
    }
    out = std::move(*answer);
    return kExitOk;
  }

  void print_timings(const Answer& answer, const MemoryUse& peak) const {
    std::fflush(stdout); // the answer stands before its numbers
    const AnswerTimings& t = answer.timings;
    fmt::print(stderr,
               "prompt {} tokens ({} of pictures, {} reused); load {}, picture {}, encode {}, "
               "prefill {}, first token {}\n",
               answer.prompt_tokens, answer.picture_tokens, answer.reused_tokens,
               format_millis(load_ms_), format_millis(t.picture), format_millis(t.encode),
               format_millis(t.prefill), format_millis(t.first_token));
    if (answer.generated_tokens > 1) {
      fmt::print(stderr, "generated {} tokens, {:.1f} tokens/s\n", answer.generated_tokens,
                 1000.0 * static_cast<double>(answer.generated_tokens - 1) / t.decode);
    }
    fmt::print(stderr, "anonymous memory {} at its peak, {} planned\n",
               format_bytes(static_cast<uint64_t>(peak.anonymous)),
               format_bytes(
                   static_cast<uint64_t>(answerer_->session().anonymous_bytes() + grammar_bytes_)));
  }

  int chat(double files_ms) {
    if (options_.context_tokens == 0) {
      options_.context_tokens = std::min(kChatContext, loaded_->model.context_length);
    }
    std::vector<ChatTurn> turns = first_turns();
    if (const int code = prepare(turns, 0))
      return code;
    load_ms_ = files_ms + create_ms_;
    fmt::print(stderr, "{}\n", dim("Ask; an empty line or Ctrl-D ends the chat.", STDERR_FILENO));
    std::string line;
    while (true) {
      fmt::print(stderr, "{}", bold("> ", STDERR_FILENO));
      if (!read_line(line) || line.empty())
        break;
      const bool pictures_were_sent = pictures_sent_;
      turns.push_back(user_turn(line));
      Answer answer;
      const int code = ask(turns, answer);
      if (code == kExitTooLarge) { // a shorter question may fit, or this one when memory is there
        turns.pop_back();
        pictures_sent_ = pictures_were_sent;
        continue;
      }
      if (code != kExitOk)
        return code;
      turns.push_back({"assistant", answer.text, {}});
    }
    return interrupted() ? kExitInterrupted : kExitOk;
  }

  AskOptions options_;
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<Answerer> answerer_;
  std::vector<Picture> pictures_;
  KernelChoice kernels_;
  bool pictures_sent_ = false;
  double create_ms_ = 0;
  double load_ms_ = 0;
  int64_t grammar_bytes_ = 0; // that a structured answer may take, beside the session
};

} // namespace

void add_ask(CLI::App& app, int& exit) {
  auto options = std::make_shared<AskOptions>();
  CLI::App* ask = app.add_subcommand("ask", "Ask a question about pictures");
  ask->footer(
      "Examples:\n"
      "  pinhole ask -i receipt.jpg \"What is the total on this receipt?\"\n"
      "  pinhole ask -i before.png -i after.png \"What changed?\"\n"
      "  curl -s https://example.org/a.png | pinhole ask -i - \"Describe this.\" --json\n"
      "  pinhole ask -m Qwen3-VL-2B-Q4_K_M.gguf -i page.png --max-image-tokens 512 -v \\\n"
      "    \"Which button opens the cart?\"\n"
      "  pinhole ask -i page.png --choices yes,no \"Is there a search field?\"\n"
      "  pinhole ask -i receipt.jpg --json-schema receipt.schema.json \"Read the receipt.\"\n"
      "  pinhole ask -i photo.jpg          (a chat about the picture)");
  AskOptions& o = *options;
  ask->add_option("question", o.question, "The question; without one: a chat, or standard input");
  ask->add_option("-m,--model", o.model,
                  "A .gguf file or a Hugging Face folder (default: bundled)");
  ask->add_option("--mmproj", o.mmproj, "Picture projector of a .gguf (default: found beside it)");
  ask->add_option("-i,--image", o.images,
                  "A picture, may be given several times; - reads it from "
                  "standard input")
      ->allow_extra_args(false);
  ask->add_option("--system", o.system, "System prompt");
  ask->add_option("-n,--max-tokens", o.answer.max_new_tokens, "Longest answer in tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  ask->add_option("--ctx", o.context_tokens,
                  "Tokens that prompt and answer may take together (default: as many as needed)")
      ->check(CLI::Range(1, 1 << 26));
  ask->add_option("--chunk", o.chunk_tokens, "Prompt tokens processed at a time")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  ask->add_option("--ram", o.ram,
                  "Memory that the program may take, such as 8G (default: what is available); "
                  "weights that do not fit are read again and again");
  ask->add_option("--max-image-tokens", o.picture.max_tokens,
                  "Scale each picture down to cost at most this many tokens")
      ->check(CLI::Range(1, 1 << 20));
  ask->add_option("--min-image-tokens", o.picture.min_tokens,
                  "Scale each picture up to cost at least this many tokens")
      ->check(CLI::Range(1, 1 << 20));
  SamplingOptions& s = o.answer.sampling;
  ask->add_option("--temperature", s.temperature, "0: always the most likely token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  ask->add_option("--top-k", s.top_k, "Choose among the k most likely tokens (0: all)")
      ->check(CLI::Range(0, 1 << 24));
  ask->add_option("--top-p", s.top_p, "Choose among the most likely tokens that add up to p")
      ->check(CLI::Range(0.0, 1.0));
  ask->add_option("--min-p", s.min_p, "Drop tokens below this share of the most likely one")
      ->check(CLI::Range(0.0, 1.0));
  ask->add_option("--repeat-penalty", s.repetition_penalty,
                  "Above 1: tokens seen become unlikelier")
      ->check(CLI::Range(0.01, 100.0));
  ask->add_option("--presence-penalty", s.presence_penalty, "Taken off tokens of the answer, once")
      ->check(CLI::Range(-100.0, 100.0));
  ask->add_option("--frequency-penalty", s.frequency_penalty, "Taken off for each occurrence")
      ->check(CLI::Range(-100.0, 100.0));
  ask->add_option("--seed", s.seed, "Seed for temperatures above 0");
  ask->add_option("--stop", o.answer.stop, "End the answer before this text; may be repeated")
      ->allow_extra_args(false);
  CLI::Option* choices =
      ask->add_option("--choices", o.choices,
                      "The answer is one of these, as in yes,no,unknown; may be repeated")
          ->delimiter(',')
          ->allow_extra_args(false);
  CLI::Option* regex =
      ask->add_option("--regex", o.regex, "The whole answer matches this regular expression");
  CLI::Option* schema = ask->add_option("--json-schema", o.json_schema,
                                        "The answer is JSON that the schema in this file accepts");
  choices->excludes(regex)->excludes(schema);
  regex->excludes(schema);
  ask->add_flag("--ignore-eos", o.answer.ignore_eos, "Go on to --max-tokens (for measuring)");
  ask->add_flag("--json", o.json, "Print answer, tokens, timings and memory as JSON");
  ask->add_flag("-v,--verbose", o.verbose, "Print token costs, the memory plan and timings");
  o.compute.add_to(*ask);
  ask->callback([options, &exit] { exit = AskCommand(*options).run(); });
}

} // namespace pinhole::cli
