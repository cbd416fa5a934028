// pinhole plan: will it fit, how fast will it be, what is the largest that fits; before anything is
// loaded.
#include "base/units.h"
#include "base/write_file.h"
#include "cli/common.h"
#include "cli/plan_report.h"
#include "plan/machine.h"
#include "plan/moment.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

namespace pinhole::cli {

namespace {

struct PlanOptions {
  std::vector<std::string> models, images = {"1024x768"};
  PlanRequest request;
  ComputeOptions compute;
  std::string ram, machine, vram, svg;
  double gpu_share_percent = 0;
  bool layers = false, explain = false, json = false, measure = false, alternatives = false;
};

class PlanCommand {
 public:
  explicit PlanCommand(PlanOptions options) : options_(std::move(options)) {}

  int run() {
    if (options_.models.empty()) {
      auto path = default_model();
      if (!path)
        return report(path.error());
      options_.models.push_back(*path);
    }
    auto kernels = options_.compute.resolve();
    if (!kernels)
      return report(kernels.error());
    auto place =
        find_place(options_.ram, options_.machine, options_.vram, options_.gpu_share_percent / 100);
    if (!place)
      return report(place.error());
    if (options_.request.parallel > options_.request.context_tokens)
      return report({ErrorCode::kInvalidInput, "more conversations than tokens in a context",
                     "--parallel", "raise --ctx"});
    for (const std::string& image : options_.images) {
      if (image == "none")
        continue;
      auto planned = parse_image(image);
      if (!planned)
        return report(planned.error());
      options_.request.images.push_back(*planned);
    }
    for (const std::string& model : options_.models) {
      options_.request.path = model;
      auto made = with_progress(*kernels, *place);
      if (!made)
        return report(made.error());
      reports_.push_back(std::move(*made));
    }
    measure(*kernels, *place);
    if (reports_.size() == 1 && wants_alternatives(reports_[0])) {
      options_.request.path = reports_[0].path;
      reports_[0].options =
          find_options(alternatives_, options_.request, *kernels, reports_[0].rates, *place);
    }
    print();
    if (!options_.svg.empty()) {
      const auto written = write_file(options_.svg, report_to_svg(reports_));
      if (!written)
        return report(written.error());
    }
    const bool all_fit = std::all_of(reports_.begin(), reports_.end(), [](const PlanReport& one) {
      return one.run.verdict() == Verdict::kFits;
    });
    return all_fit ? kExitOk : kExitTooLarge;
  }

 private:
  // The report of options_.request; shows what is fetched, if anything is.
  Result<PlanReport> with_progress(const KernelChoice& kernels, const Place& place) {
    ProgressLine progress(!options_.json);
    options_.request.on_fetch = [&](uint64_t bytes, uint64_t wanted) {
      progress.update("reading the header over the network", static_cast<int64_t>(bytes >> 10),
                      static_cast<int64_t>(wanted >> 10), "KiB");
    };
    return make_report(options_.request, kernels, place);
  }

  bool wants_alternatives(const PlanReport& report) const {
    return options_.alternatives || report.run.verdict() != Verdict::kFits;
  }

  // The rates that are not kept yet, then those of the moment, of each model. Predictions go on
  // when they cannot be kept. Those that other work disturbed serve until the machine is quiet.
  void measure(const KernelChoice& kernels, const Place& place) {
    rates_ = load_rates(kernels);
    if (options_.measure || (rates_.disturbed && !Disturbance::likely()))
      rates_ = KernelRates{rates_.cpu, rates_.isa, rates_.num_threads, rates_.exact};
    ThreadPool threads(kernels.num_threads);
    ProgressLine progress(!options_.json);
    progress.update("measuring this machine", 0, 1, "");
    const Disturbance others;
    bool measured = false;
    for (const PlanReport& one : reports_) {
      for (const Graph* graph : {&one.model.text, &one.model.vision})
        measured = measure_rates(*graph, kernels, threads, rates_) || measured;
    }
    if (reports_.size() == 1 && wants_alternatives(reports_[0]))
      alternatives_ = quantised_models(reports_[0].model, options_.request.weights);
    for (const QuantisedModel& one : alternatives_) {
      for (const Graph* graph : {&one.model.text, &one.model.vision})
        measured = measure_rates(*graph, kernels, threads, rates_) || measured;
    }
    if (measured) {
      rates_.disturbed = rates_.disturbed || others.disturbed();
      const auto saved = save_rates(rates_);
      if (!saved) {
        progress.clear();
        fmt::print(stderr, "pinhole: the measured rates are not kept: {}\n", saved.error().text());
      }
    }
    for (PlanReport& one : reports_) {
      one.rates = rates_;
      const bool has_file = !one.files.text.parts().empty() && !one.remote;
      const MappedFile* file = has_file ? &one.files.text.parts().front() : nullptr;
      if ((one.run.residency.streams() || options_.layers || one.uncached_bytes > 0) && has_file)
        one.rates.disk_gb_per_s =
            one.run.residency.streams() ? measure_stream(*file) : measure_disk(*file);
      measure_moment(one.model.text, one.uncached_bytes == 0 ? file : nullptr, kernels, threads,
                     one.rates);
      one.speed = speed_of(one.model, one.run, kernels, one.rates, place, one.uncached_bytes);
    }
  }

  void print() const {
    if (options_.json) {
      Json out = Json::array();
      for (const PlanReport& one : reports_)
        out.push_back(report_to_json(one, options_.layers));
      fmt::print("{}\n", (reports_.size() == 1 ? out[0] : out)
                             .dump(2, ' ', false, Json::error_handler_t::replace));
      return;
    }
    if (reports_.size() > 1)
      return print_comparison(reports_);
    print_report(reports_[0]);
    if (options_.layers)
      print_layers(reports_[0]);
    if (options_.explain)
      print_explanation(reports_[0]);
  }

  PlanOptions options_;
  KernelRates rates_;
  std::vector<PlanReport> reports_;
  std::vector<QuantisedModel> alternatives_;
};

} // namespace

void add_plan(CLI::App& app, int& exit) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* plan = app.add_subcommand("plan", "Will it fit, and how fast will it be");
  plan->footer("Examples:\n"
               "  pinhole plan Qwen3-VL-2B-Q4_K_M.gguf --image 1280x832 --ctx 8192\n"
               "  pinhole plan config.json --weights q4_k_m --ram 16G\n"
               "  pinhole plan 2b.gguf 4b.gguf 8b.gguf --ram 8G      (a line each)\n"
               "  pinhole plan https://host/8b.gguf --image none     (reads its header alone)\n"
               "  pinhole plan 8b.gguf --layers --explain\n"
               "  pinhole plan config.json --machine t4 --options\n"
               "  pinhole plan 8b.gguf --ram 16G --vram 8G --svg plan.svg\n"
               "Exit code 0: everything fits; 3: something does not.");
  PlanOptions& o = *options;
  plan->add_option("models", o.models,
                   "A .gguf, a Hugging Face folder, or its config.json alone; also the http(s) "
                   "address of a .gguf or config.json (default: bundled)");
  plan->add_option("--mmproj", o.request.mmproj,
                   "Picture projector of a .gguf (default: found beside it)");
  plan->add_option("--ctx", o.request.context_tokens, "Tokens in the context")
      ->check(CLI::Range(1, 1 << 26))
      ->capture_default_str();
  plan->add_option(
          "--image", o.images,
          "A picture of the question, WIDTHxHEIGHT or a file; or none; may be given several times")
      ->allow_extra_args(false)
      ->capture_default_str();
  plan->add_option("--prompt", o.request.text_tokens, "Tokens of text beside the pictures")
      ->check(CLI::Range(1, 1 << 26))
      ->capture_default_str();
  plan->add_option("--chunk,--batch", o.request.chunk_tokens, "Prompt tokens processed at a time")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  plan->add_option("--max-image-tokens", o.request.picture.max_tokens,
                   "Scale each picture down to cost at most this many tokens")
      ->check(CLI::Range(1, 1 << 20));
  plan->add_option(
      "--weights", o.request.weights,
      fmt::format("Plan as if the weights were quantised so: {}", fmt::join(recipe_names(), ", ")));
  plan->add_option("--ram", o.ram, "Memory to fit in, such as 16G (default: what is available)");
  std::vector<std::string_view> machines;
  for (const KnownMachine& machine : known_machines())
    machines.push_back(machine.name);
  plan->add_option("--machine", o.machine,
                   fmt::format("Plan for another machine: {}", fmt::join(machines, ", ")));
  plan->add_option("--vram", o.vram, "Memory of a GPU beside the RAM, such as 8G");
  plan->add_option(
          "--gpu-share", o.gpu_share_percent,
          "Percent of the GPU's memory that may be used (default: 90; of unified memory 70)")
      ->check(CLI::Range(1.0, 100.0));
  plan->add_option("--parallel", o.request.parallel, "Conversations at the same time")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  plan->add_flag("--options", o.alternatives,
                 "Search quantisations, contexts and pictures also when everything fits");
  plan->add_option("--svg", o.svg, "Write a picture of the plan to this file");
  plan->add_flag("--layers", o.layers, "Bytes and times of each layer");
  plan->add_flag("--explain", o.explain, "Say in words where the bytes come from");
  plan->add_flag("--measure", o.measure, "Measure this machine again");
  plan->add_flag("--json", o.json, "Machine-readable output");
  o.compute.add_to(*plan);
  plan->callback([options, &exit] { exit = PlanCommand(*options).run(); });
}

} // namespace pinhole::cli
