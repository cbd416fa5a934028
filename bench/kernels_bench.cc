// Speed of the kernels on one thread, beside what the machine can do with the same instruction set
// (kernels::Table::peaks, read_memory). Matmul reports GFLOP/s and share (of the kind of arithmetic
// of its kernel); with one row of x the weights come from memory, and GB/s and share (of the read
// bandwidth) count weight bytes. Usage: kernels_bench [--benchmark_filter=amx/Q4_K.*/m512].
#include "kernels/select.h"
#include "quant/formats.h"

#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace pinhole::kernels {
namespace {

double seconds_now() { // of this thread: other work on the machine does not count
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// The shortest of many runs of f, in seconds.
template <class F> double best_seconds(int runs, F f) {
  double best = 1e9;
  for (int i = 0; i < runs; ++i) {
    double start = seconds_now();
    f();
    best = std::min(best, seconds_now() - start);
  }
  return best;
}

uint8_t* big_pages(size_t size) {
  void* p = nullptr;
  if (posix_memalign(&p, size_t{2} << 20, size) != 0)
    abort();
  madvise(p, size, MADV_HUGEPAGE);
  return static_cast<uint8_t*>(p);
}

constexpr size_t kArena = size_t{512} << 20; // several times an L3 share

uint8_t* arena() {
  static uint8_t* memory = [] {
    uint8_t* p = big_pages(kArena);
    memset(p, 0, kArena);
    return p;
  }();
  return memory;
}

// The peak of the arithmetic that a kernel's name tells. (16-bit integers are held against bytes.)
double measure_gflop_per_s(const Table* table, std::string_view kernel) {
  const bool is_int = kernel.find(".int") != std::string_view::npos;
  const bool is_bf16 = kernel.find("bf16") != std::string_view::npos;
  const std::string_view kind = is_bf16 ? "bf16 tiles" : is_int ? "int8" : "f32";
  double best = 0.0;
  for (int64_t i = 0; i < table->num_peaks; ++i) {
    const PeakLoop& peak = table->peaks[i];
    if (kind != peak.name)
      continue;
    constexpr int64_t kRounds = 20000;
    const double seconds = best_seconds(20, [&] { peak.run(kRounds); });
    best = std::max(best, static_cast<double>(kRounds * peak.ops_per_round) / seconds * 1e-9);
  }
  return best;
}

// Measured anew for each kernel: neighbours and clock make both move.
double ceiling(const Table* table, const char* kernel, bool memory) {
  if (!memory)
    return measure_gflop_per_s(table, kernel);
  const double seconds = best_seconds(6, [&] { table->read_memory(arena(), kArena); });
  return static_cast<double>(kArena) / seconds * 1e-9;
}

void bench_matmul(benchmark::State& state, const Table* table, FormatId format, int64_t m,
                  int64_t n, int64_t k, bool exact) {
  const MatmulKernel* kernel = table->matmul(format, m, exact);
  if (m > 8)
    n = std::min<int64_t>(n, 512); // short runs, of which some are undisturbed
  int64_t bytes = row_bytes(format, k) * n;
  uint8_t* weights = arena();
  // One valid block everywhere: zeros decode to zeros, and speed does not depend on values.
  int64_t copies = m <= 8 ? static_cast<int64_t>(kArena) / bytes : 1;
  std::vector<float> x(static_cast<size_t>(m * k));
  float* y = reinterpret_cast<float*>(big_pages(static_cast<size_t>(m * n) * sizeof(float)));
  std::mt19937 random(1);
  for (float& value : x)
    value = static_cast<float>(random()) * 1e-9f - 2.0f;
  uint8_t* packed = big_pages(static_cast<size_t>(kernel->x_bytes(m, k)));
  uint8_t* scratch = big_pages(static_cast<size_t>(kernel->scratch_bytes(m, k)) + 64);
  MatmulArgs args = {};
  args.x = packed;
  args.w_row_bytes = row_bytes(format, k);
  args.y = y;
  args.y_stride = n;
  args.m = m;
  args.n = n;
  args.k = k;
  args.scratch = scratch;
  kernel->pack_x(x.data(), k, m, k, 0, m, packed);
  double pack = best_seconds(3, [&] { kernel->pack_x(x.data(), k, m, k, 0, m, packed); });
  int64_t copy = 0;
  double best = 1e9;
  for (auto _ : state) {
    args.w = weights + copy * bytes;
    copy = copy + 1 < copies ? copy + 1 : 0;
    double start = seconds_now();
    kernel->run(args);
    best = std::min(best, seconds_now() - start);
  }
  state.SetLabel(kernel->name);
  double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  double top = ceiling(table, kernel->name, m == 1);
  double speed = m == 1 ? static_cast<double>(bytes) / best * 1e-9 : flops / best * 1e-9;
  state.counters[m == 1 ? "GB/s" : "GFLOP/s"] = speed;
  state.counters["ceiling"] = top;
  state.counters["share"] = top > 0.0 ? speed / top : 0.0;
  state.counters["pack_us"] = pack * 1e6;
  free(y);
  free(packed);
  free(scratch);
}

void bench_attention(benchmark::State& state, const Table* table, KvType type, int64_t tokens,
                     int64_t heads, int64_t kv_heads, int64_t head_dim, bool causal) {
  const AttentionKernel* kernel = table->attention(type, tokens, false);
  int64_t element = type == KvType::kF32 ? 4 : 2;
  std::vector<float> q(static_cast<size_t>(tokens * heads * head_dim), 0.1f), out(q.size());
  uint8_t* kv = arena();
  std::vector<int32_t> begin(static_cast<size_t>(tokens), 0), end(begin.size());
  for (int64_t i = 0; i < tokens; ++i)
    end[static_cast<size_t>(i)] = static_cast<int32_t>(causal ? i + 1 : tokens);
  uint8_t* scratch =
      big_pages(static_cast<size_t>(kernel->scratch_bytes(tokens, tokens, head_dim)) + 64);
  AttentionArgs args = {};
  args.q = q.data();
  args.q_stride = heads * head_dim;
  args.k = kv;
  args.v = kv + tokens * kv_heads * head_dim * element;
  args.k_row_bytes = args.v_row_bytes = kv_heads * head_dim * element;
  args.k_head_bytes = args.v_head_bytes = head_dim * element;
  args.kv_type = type;
  args.key_begin = begin.data();
  args.key_end = end.data();
  args.out = out.data();
  args.out_stride = heads * head_dim;
  args.num_heads = heads;
  args.num_kv_heads = kv_heads;
  args.head_dim = head_dim;
  args.q_end = tokens;
  args.head_end = heads / kv_heads; // one kv head: short runs, of which some are undisturbed
  args.num_kv = tokens;
  args.scale = 0.125f;
  args.scratch = scratch;
  double best = 1e9;
  for (auto _ : state) {
    double start = seconds_now();
    kernel->run(args);
    best = std::min(best, seconds_now() - start);
  }
  state.SetLabel(kernel->name);
  double flops = 4.0 * static_cast<double>(tokens) * static_cast<double>(tokens) *
                 static_cast<double>(heads / kv_heads * head_dim) * (causal ? 0.5 : 1.0);
  double top = ceiling(table, kernel->name, false);
  state.counters["GFLOP/s"] = flops / best * 1e-9;
  state.counters["ceiling"] = top;
  state.counters["share"] = top > 0.0 ? flops / best * 1e-9 / top : 0.0;
  free(scratch);
}

struct Shape {
  const char* name;
  int64_t n, k;
};

void register_all() {
  // Qwen3-VL-2B: the text layers, and the vision tower.
  static constexpr Shape kText[] = {
      {"qkv", 4096, 2048}, {"gate_up", 6144, 2048}, {"down", 2048, 6144}};
  static constexpr Shape kVision[] = {
      {"vit_qkv", 3072, 1024}, {"vit_fc1", 4096, 1024}, {"vit_fc2", 1024, 4096}};
  for (std::string_view isa : available()) {
    const Table* table = *find(isa);
    auto add = [&](FormatId format, const Shape& shape, int64_t m, bool exact) {
      std::string name = std::string(isa) + "/" + std::string(format_info(format).name) +
                         (exact ? "/exact/" : "/") + shape.name + "/m" + std::to_string(m);
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        bench_matmul(state, table, format, m, shape.n, shape.k, exact);
      })->Unit(benchmark::kMillisecond);
    };
    for (const Shape& shape : kText) {
      for (const FormatInfo& info : kFormats)
        add(info.id, shape, 1, false);
      for (FormatId format : {FormatId::kQ4_K, FormatId::kQ6_K, FormatId::kQ8_0})
        for (int64_t m : {2, 4, 8, 16, 32, 128, 512, 1024})
          add(format, shape, m, false);
    }
    for (const Shape& shape : kVision)
      for (FormatId format : {FormatId::kF16, FormatId::kQ8_0, FormatId::kF32})
        add(format, shape, 3072, false);
    add(FormatId::kQ4_K, kText[0], 128, true);
    auto attend = [&](const char* what, KvType type, int64_t tokens, int64_t heads, int64_t kv,
                      int64_t dim, bool causal) {
      std::string name = std::string(isa) + "/attention/" + what;
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        bench_attention(state, table, type, tokens, heads, kv, dim, causal);
      })->Unit(benchmark::kMillisecond);
    };
    attend("vit_64", KvType::kF32, 3072, 16, 16, 64, false);
    attend("vit_72", KvType::kF32, 3072, 16, 16, 72, false);
    attend("causal_128", KvType::kF16, 1024, 16, 8, 128, true);
  }
}

} // namespace
} // namespace pinhole::kernels

int main(int argc, char** argv) {
  pinhole::kernels::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
