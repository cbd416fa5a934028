#include "plan/rates.h"

#include "base/checked.h"
#include "base/mapped_file.h"
#include "base/memory_limit.h"
#include "base/write_file.h"
#include "plan/machine.h"
#include "plan/memory.h"
#include "plan/pages.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <set>

namespace pinhole {

namespace {

// A prompt's and a picture's matmuls, with two counts of rows of x, between which the cost of
// unpacking W is told apart; rows of W whose packed form leaves L1. Slow kernels take fewer rows of
// x, so that one run stays under a second.
constexpr int64_t kManyRows[] = {96, 768};
constexpr int64_t kFewRows[] = {16, 32};
constexpr int64_t kWeightRows = 512;
constexpr int64_t kColumns = 2048;
constexpr int64_t kFewColumns = 256; // against which the cost of y is told apart
// A vision tower's heads, side by side in memory as its matmuls leave them.
constexpr int64_t kAttentionRows = 1024; // over which the cost of packing the keys is spread
constexpr int64_t kAttentionKeys = 1024;
constexpr int64_t kAttentionHeads = 16;
constexpr int64_t kMeasuredHeads = 4; // of them
constexpr int64_t kAttentionDim = 64;
constexpr int64_t kMemoryKeys = 16384; // 64 MiB of keys and values a thread: from memory
constexpr int64_t kCachedKeys = 128;   // half a MiB
constexpr int64_t kCachedHeads = 8;
constexpr int64_t kCachedDim = 128;
constexpr int64_t kElements = 8 << 20; // f32, of each operand
constexpr double kEnoughSeconds = 0.02;
constexpr int kPasses = 3; // over a format, of which the quickest counts: a neighbour's work lasts
constexpr int kVersion = 8;

// Seconds of work(thread_idx) on all threads: the best of runs that take kEnoughSeconds together,
// so that a moment of other work does not count.
double best_seconds(ThreadPool& threads, FunctionRef<void(int)> work) {
  double best = 1e30;
  double total = 0;
  threads.run(work); // pages, caches
  for (int runs = 0; runs < 3 || (total < kEnoughSeconds && runs < 100); ++runs) {
    const auto start = std::chrono::steady_clock::now();
    threads.run(work);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, seconds);
    total += seconds;
    if (seconds > 0.5)
      break;
  }
  return best;
}

// One thread's share of a matmul.
struct MatmulRun {
  const kernels::MatmulKernel* kernel;
  std::unique_ptr<Pages> x, w, y, scratch;
  kernels::MatmulArgs args{};

  MatmulRun(const KernelChoice& choice, FormatId format, int64_t m, int64_t k)
      : kernel(choice.table->matmul(format, m, choice.exact)),
        x(std::make_unique<Pages>(kernel->x_bytes(m, k))),
        w(std::make_unique<Pages>(row_bytes(format, k) * kWeightRows)),
        y(std::make_unique<Pages>(m * kWeightRows * 4)),
        scratch(std::make_unique<Pages>(kernel->scratch_bytes(m, k))) {
    const Pages values(m * k * 4);
    kernel->pack_x(values.floats(), k, m, k, 0, m, x->data());
    args.x = x->data();
    args.w = w->data();
    args.w_row_bytes = row_bytes(format, k);
    args.y = y->floats();
    args.y_stride = kWeightRows;
    args.m = m;
    args.n = kWeightRows;
    args.k = k;
    args.scratch = scratch->data();
  }
};

double matmul_seconds(const KernelChoice& choice, ThreadPool& threads, FormatId format, int64_t m,
                      int64_t k = kColumns) {
  std::vector<std::unique_ptr<MatmulRun>> runs;
  for (int i = 0; i < threads.num_threads(); ++i)
    runs.push_back(std::make_unique<MatmulRun>(choice, format, m, k));
  for (const auto& run : runs)
    run->args.x = runs[0]->args.x; // which all threads read, as in a run
  return best_seconds(threads, [&](int idx) {
    const MatmulRun& run = *runs[static_cast<size_t>(idx)];
    run.kernel->run(run.args);
  });
}

// The times of a format's matmuls: with few rows of x, with many, with many and few columns, with
// one; and of packing many rows.
struct FormatSeconds {
  double few = 1e30, many = 1e30, narrow = 1e30, one = 1e30, pack = 1e30;
};

double pack_seconds(const KernelChoice& choice, ThreadPool& threads, FormatId format, int64_t m) {
  const kernels::MatmulKernel* kernel = choice.table->matmul(format, m, choice.exact);
  const Pages x(m * kColumns * 4);
  const int64_t packed_bytes = round_up(kernel->x_bytes(m, kColumns), kAlignment);
  const Pages packed(packed_bytes * threads.num_threads());
  return best_seconds(threads, [&](int idx) {
    kernel->pack_x(x.floats(), kColumns, m, kColumns, 0, m, packed.data() + idx * packed_bytes);
  });
}

FormatRate measure_format(const KernelChoice& choice, ThreadPool& threads, FormatId format) {
  const auto seconds_of = [&](int64_t m, int64_t k = kColumns) {
    return matmul_seconds(choice, threads, format, m, k);
  };
  const double first = seconds_of(kFewRows[0]);
  const bool slow =
      first * static_cast<double>(kManyRows[1]) / static_cast<double>(kFewRows[0]) > 0.5;
  const int64_t* rows = slow ? kFewRows : kManyRows;
  FormatSeconds best;
  FormatRate rate;
  for (int pass = 0; pass < kPasses; ++pass) {
    best.few = std::min(best.few, seconds_of(rows[0]));
    best.many = std::min(best.many, seconds_of(rows[1]));
    best.narrow = std::min(best.narrow, seconds_of(rows[1], kFewColumns));
    best.one = std::min(best.one, seconds_of(1));
    best.pack = std::min(best.pack, pack_seconds(choice, threads, format, rows[1]));
    rate.peak_gop_per_s = std::max(rate.peak_gop_per_s, measure_arithmetic(*choice.table, threads));
  }
  const auto all = static_cast<double>(threads.num_threads());
  const auto many_rows = static_cast<double>(rows[1]);
  const double weight_gb =
      1e-9 * all * static_cast<double>(row_bytes(format, kColumns) * kWeightRows);
  // seconds = a * rows + b; where measuring noise leaves no b, all of it is arithmetic.
  const double a = std::clamp((best.many - best.few) / static_cast<double>(rows[1] - rows[0]),
                              0.5 * best.many / many_rows, best.many / many_rows);
  const double b = best.many - a * many_rows;
  // With few columns the arithmetic shrinks with them, the output does not.
  const double narrow = static_cast<double>(kFewColumns) / static_cast<double>(kColumns);
  const double out = (best.narrow - narrow * best.many) / (1 - narrow);
  const double row_gflop = 2e-9 * all * static_cast<double>(kWeightRows * kColumns);
  rate.many_gflop_per_s = row_gflop / std::max(a - std::max(out, 0.0) / many_rows, 0.5 * a);
  rate.out_gb_per_s = 1e-9 * all * many_rows * kWeightRows * 4 / std::max(out, 1e-9);
  rate.unpack_gb_per_s = weight_gb / std::max(b, 1e-9);
  rate.pack_gb_per_s = 1e-9 * all * many_rows * kColumns * 4 / best.pack;
  rate.one_gb_per_s = weight_gb / best.one;
  return rate;
}

// GFLOP/s where there are many queries, GB/s of keys and values where there is one.
double measure_attention(const KernelChoice& choice, ThreadPool& threads, kernels::KvType type,
                         int64_t queries, int64_t keys, int64_t heads, int64_t dim) {
  const kernels::AttentionKernel* kernel = choice.table->attention(type, queries, choice.exact);
  const int64_t element = kv_row_bytes(type, dim);
  const Pages cache(threads.num_threads() * 2 * keys * heads * element);
  const Pages q(queries * heads * dim * 4);
  const Pages out(threads.num_threads() * queries * heads * dim * 4);
  const int64_t scratch_bytes = round_up(kernel->scratch_bytes(queries, keys, dim), kAlignment);
  const Pages scratch(threads.num_threads() * scratch_bytes);
  const std::vector<int32_t> begin(static_cast<size_t>(queries), 0);
  const std::vector<int32_t> end(static_cast<size_t>(queries), static_cast<int32_t>(keys));
  const double seconds = best_seconds(threads, [&](int idx) {
    kernels::AttentionArgs args{};
    args.q = q.floats();
    args.q_stride = heads * dim;
    args.k = cache.data() + idx * 2 * keys * heads * element;
    args.v = static_cast<const std::byte*>(args.k) + keys * heads * element;
    args.k_row_bytes = args.v_row_bytes = heads * element;
    args.k_head_bytes = args.v_head_bytes = element;
    args.kv_type = type;
    args.key_begin = begin.data();
    args.key_end = end.data();
    args.out = out.floats() + idx * queries * heads * dim;
    args.out_stride = heads * dim;
    args.num_heads = args.num_kv_heads = heads;
    args.head_dim = dim;
    args.q_end = queries;
    args.head_end = queries > 1 ? kMeasuredHeads : heads;
    args.num_kv = keys;
    args.scale = 0.125f;
    args.scratch = scratch.data() + idx * scratch_bytes;
    kernel->run(args);
  });
  const auto pairs = static_cast<double>(threads.num_threads() * queries * keys *
                                         (queries > 1 ? kMeasuredHeads : heads));
  const double amount = queries > 1 ? 4.0 * pairs * static_cast<double>(dim)
                                    : 2.0 * pairs * static_cast<double>(element);
  return amount * 1e-9 / seconds;
}

double measure_elementwise(const KernelChoice& choice, ThreadPool& threads) {
  const Pages a(kElements * 4), b(kElements * 4);
  const int64_t part = kElements / threads.num_threads() / 16 * 16;
  const double seconds = best_seconds(threads, [&](int idx) {
    choice.table->add(a.floats() + idx * part, b.floats() + idx * part, a.floats() + idx * part,
                      part);
  });
  return static_cast<double>(part * threads.num_threads() * 12) * 1e-9 / seconds;
}

double measure_activation(const KernelChoice& choice, ThreadPool& threads) {
  constexpr int64_t kPart = 64 * 1024;
  const Pages x(kPart * threads.num_threads() * 4);
  const double seconds = best_seconds(threads, [&](int idx) {
    choice.table->activate(kernels::Activation::kGeluTanh, x.floats() + idx * kPart,
                           x.floats() + idx * kPart, kPart);
  });
  return static_cast<double>(kPart * threads.num_threads() * 4) * 1e-9 / seconds;
}

// Of the last level that the kernel tells of ("32768K"). (sysconf counts all sockets.)
int64_t shared_cache_bytes() {
  for (int index = 4; index >= 2; --index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) +
                       "/size");
    std::string text;
    if (file >> text)
      return parse_bytes(text).value_or(0);
  }
  return 0;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos)
      return line.substr(colon + 2);
  }
  return "unknown";
}

KernelRates empty_rates(const KernelChoice& kernels) {
  KernelRates rates;
  rates.cpu = cpu_name();
  rates.isa = kernels.table->isa;
  rates.num_threads = kernels.num_threads;
  rates.exact = kernels.exact;
  return rates;
}

bool same_machine(const KernelRates& a, const KernelRates& b) {
  return a.cpu == b.cpu && a.isa == b.isa && a.num_threads == b.num_threads && a.exact == b.exact;
}

// A kept rate: positive and finite, else it counts as not measured.
double rate_in(const Json& object, std::string_view key) {
  const auto value = json_double_or(object, key, 0, "");
  return value && *value > 0 && *value < 1e12 ? *value : 0;
}

KernelRates rates_from_json(const Json& json) {
  KernelRates rates;
  rates.cpu = json_string(json, "cpu", "").value_or("");
  rates.isa = json_string(json, "isa", "").value_or("");
  rates.num_threads = static_cast<int>(json_int_or(json, "threads", 0, "").value_or(0));
  rates.exact = json_bool_or(json, "exact", false, "").value_or(false);
  rates.disturbed = json_bool_or(json, "disturbed", false, "").value_or(false);
  rates.peak_gop_per_s = rate_in(json, "peak_gop_per_s");
  rates.attention_gflop_per_s = rate_in(json, "attention_gflop_per_s");
  rates.cache_gb_per_s = rate_in(json, "cache_gb_per_s");
  rates.cached_gb_per_s = rate_in(json, "cached_gb_per_s");
  rates.elementwise_gb_per_s = rate_in(json, "elementwise_gb_per_s");
  rates.activation_gb_per_s = rate_in(json, "activation_gb_per_s");
  rates.map_gb_per_s = rate_in(json, "map_gb_per_s");
  rates.shared_cache_bytes =
      std::max<int64_t>(json_int_or(json, "shared_cache_bytes", 0, "").value_or(0), 0);
  const Json* formats = json_find(json, "formats");
  for (const FormatInfo& info : kFormats) {
    const Json* one = formats == nullptr ? nullptr : json_find(*formats, info.name);
    if (one == nullptr)
      continue;
    rates.formats[static_cast<size_t>(info.id)] = {
        rate_in(*one, "many_gflop_per_s"), rate_in(*one, "unpack_gb_per_s"),
        rate_in(*one, "pack_gb_per_s"),    rate_in(*one, "one_gb_per_s"),
        rate_in(*one, "out_gb_per_s"),     rate_in(*one, "peak_gop_per_s")};
  }
  return rates;
}

// The machines of the kept file; none when it is absent or damaged.
std::vector<KernelRates> kept_rates() {
  std::vector<KernelRates> out;
  const auto json = read_json_file(rates_path(), 1 << 20);
  if (!json || json_int_or(*json, "version", 0, "").value_or(0) != kVersion)
    return out;
  const Json* machines = json_find(*json, "machines");
  if (machines == nullptr || !machines->is_array())
    return out;
  for (const Json& machine : *machines)
    out.push_back(rates_from_json(machine));
  return out;
}

} // namespace

bool measure_rates(const Graph& graph, const KernelChoice& kernels, ThreadPool& threads,
                   KernelRates& rates) {
  bool measured = false;
  if (rates.elementwise_gb_per_s == 0 || rates.activation_gb_per_s == 0) {
    measured = true;
    for (int pass = 0; pass < kPasses; ++pass) {
      const auto keep_best = [](double& best, double now) { best = std::max(best, now); };
      keep_best(rates.attention_gflop_per_s,
                measure_attention(kernels, threads, kernels::KvType::kF32, kAttentionRows,
                                  kAttentionKeys, kAttentionHeads, kAttentionDim));
      keep_best(rates.cache_gb_per_s, measure_attention(kernels, threads, kernels::KvType::kF16, 1,
                                                        kMemoryKeys, kCachedHeads, kCachedDim));
      keep_best(rates.cached_gb_per_s, measure_attention(kernels, threads, kernels::KvType::kF16, 1,
                                                         kCachedKeys, kCachedHeads, kCachedDim));
      keep_best(rates.elementwise_gb_per_s, measure_elementwise(kernels, threads));
      keep_best(rates.activation_gb_per_s, measure_activation(kernels, threads));
    }
    rates.peak_gop_per_s = measure_arithmetic(*kernels.table, threads);
    if (const auto program = MappedFile::open("/proc/self/exe"))
      rates.map_gb_per_s = measure_mapping(*program, program->bytes().size(), threads);
    rates.shared_cache_bytes = shared_cache_bytes();
  }
  std::set<FormatId> used;
  for (const Op& op : graph.ops()) {
    for (const MatmulPart& part : op.parts)
      used.insert(graph.weight(part.weight).format);
    for (const WeightId id : {op.gate, op.up, op.down}) {
      if (id != kNoWeight)
        used.insert(graph.weight(id).format);
    }
  }
  for (const FormatId format : used) {
    FormatRate& rate = rates.formats[static_cast<size_t>(format)];
    if (rate.measured())
      continue;
    rate = measure_format(kernels, threads, format);
    measured = true;
  }
  return measured;
}

KernelRates rates_at(const KernelRates& rates, double peak_gop_per_s) {
  KernelRates out = rates;
  const auto share = [&](double peak) { return peak > 0 ? peak_gop_per_s / peak : 1; };
  const double general = share(rates.peak_gop_per_s);
  out.attention_gflop_per_s *= general;
  out.activation_gb_per_s *= general;
  out.elementwise_gb_per_s *= general;
  for (FormatRate& rate : out.formats) {
    const double own = share(rate.peak_gop_per_s);
    for (double* one : {&rate.many_gflop_per_s, &rate.unpack_gb_per_s, &rate.pack_gb_per_s,
                        &rate.one_gb_per_s, &rate.out_gb_per_s})
      *one *= own;
  }
  return out;
}

std::string rates_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/')
    return std::string(cache) + "/pinhole/rates.json";
  const char* home = std::getenv("HOME");
  return std::string(home == nullptr ? "/tmp" : home) + "/.cache/pinhole/rates.json";
}

KernelRates load_rates(const KernelChoice& kernels) {
  KernelRates wanted = empty_rates(kernels);
  for (KernelRates& kept : kept_rates()) {
    if (same_machine(kept, wanted))
      return kept;
  }
  return wanted;
}

Status save_rates(const KernelRates& rates) {
  std::vector<KernelRates> all = kept_rates();
  std::erase_if(all, [&](const KernelRates& kept) { return same_machine(kept, rates); });
  all.push_back(rates);
  Json json = {{"version", kVersion}, {"machines", Json::array()}};
  for (const KernelRates& machine : all)
    json["machines"].push_back(rates_to_json(machine));
  return write_file(rates_path(), json.dump(1) + "\n");
}

Json rates_to_json(const KernelRates& rates) {
  Json out = {{"cpu", rates.cpu},
              {"isa", rates.isa},
              {"threads", rates.num_threads},
              {"exact", rates.exact},
              {"disturbed", rates.disturbed},
              {"read_gb_per_s", rates.read_gb_per_s},
              {"peak_gop_per_s", rates.peak_gop_per_s},
              {"attention_gflop_per_s", rates.attention_gflop_per_s},
              {"cache_gb_per_s", rates.cache_gb_per_s},
              {"cached_gb_per_s", rates.cached_gb_per_s},
              {"elementwise_gb_per_s", rates.elementwise_gb_per_s},
              {"activation_gb_per_s", rates.activation_gb_per_s},
              {"map_gb_per_s", rates.map_gb_per_s},
              {"op_seconds", rates.op_seconds},
              {"disk_gb_per_s", rates.disk_gb_per_s},
              {"shared_cache_bytes", rates.shared_cache_bytes},
              {"formats", Json::object()}};
  for (const FormatInfo& info : kFormats) {
    const FormatRate& rate = rates.of(info.id);
    if (rate.measured())
      out["formats"][std::string(info.name)] = {
          {"many_gflop_per_s", rate.many_gflop_per_s}, {"unpack_gb_per_s", rate.unpack_gb_per_s},
          {"pack_gb_per_s", rate.pack_gb_per_s},       {"one_gb_per_s", rate.one_gb_per_s},
          {"out_gb_per_s", rate.out_gb_per_s},         {"peak_gop_per_s", rate.peak_gop_per_s},
          {"memory_gb_per_s", rate.memory_gb_per_s}};
  }
  return out;
}

} // namespace pinhole
