#include "plan/machine.h"

#include "base/function_ref.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <sys/mman.h>

namespace pinhole {

namespace {

constexpr int64_t kReadBytes = int64_t{512} << 20; // several times the largest shared caches
constexpr int kReadRuns = 5;
constexpr int kPeakRuns = 7;
constexpr double kPeakSeconds = 0.01;

double best_seconds(int runs, FunctionRef<void()> work) {
  double best = 1e30;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

MachineRate measure_peak(const kernels::PeakLoop& loop, ThreadPool& threads) {
  int64_t rounds = 1000;
  double seconds = 0;
  while ((seconds = best_seconds(1, [&] { loop.run(rounds); })) < kPeakSeconds)
    rounds *= 2;
  const double gops = static_cast<double>(rounds * loop.ops_per_round) * 1e-9;
  MachineRate rate{loop.name, 0, 0};
  rate.one_thread = gops / best_seconds(kPeakRuns, [&] { loop.run(rounds); });
  rate.all_threads = gops * threads.num_threads() /
                     best_seconds(kPeakRuns, [&] { threads.run([&](int) { loop.run(rounds); }); });
  return rate;
}

} // namespace

double Machine::ops(std::string_view name) const {
  for (const MachineRate& rate : arithmetic) {
    if (rate.name == name)
      return rate.all_threads;
  }
  return 0;
}

MachineRate measure_read(const kernels::Table& table, ThreadPool& threads) {
  MachineRate rate{"read", 0, 0};
  void* memory = ::mmap(nullptr, static_cast<size_t>(kReadBytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return rate;
  ::madvise(memory, static_cast<size_t>(kReadBytes), MADV_HUGEPAGE);
  auto* bytes = static_cast<std::byte*>(memory);
  const int64_t part = kReadBytes / threads.num_threads() / 4096 * 4096;
  threads.run([&](int idx) { std::memset(bytes + idx * part, 0, static_cast<size_t>(part)); });
  rate.one_thread = static_cast<double>(part) * 1e-9 /
                    best_seconds(kReadRuns, [&] { table.read_memory(bytes, part); });
  rate.all_threads =
      static_cast<double>(part * threads.num_threads()) * 1e-9 / best_seconds(kReadRuns, [&] {
        threads.run([&](int idx) { table.read_memory(bytes + idx * part, part); });
      });
  ::munmap(memory, static_cast<size_t>(kReadBytes));
  return rate;
}

double measure_arithmetic(const kernels::Table& table, ThreadPool& threads) {
  return table.num_peaks > 0 ? measure_peak(table.peaks[0], threads).all_threads : 0;
}

double measure_disk(const MappedFile& file) {
  constexpr uint64_t kSample = 512u << 20, kPiece = 16u << 20;
  const uint64_t size = file.bytes().size();
  const uint64_t begin = size > kSample ? (size - kSample) / 2 : 0;
  const uint64_t end = std::min(size, begin + kSample);
  if (begin == end)
    return 0;
  file.drop(begin, end - begin);
  const auto start = std::chrono::steady_clock::now();
  for (uint64_t at = begin; at < end; at += kPiece) {
    const uint64_t bytes = std::min(kPiece, end - at);
    file.prefetch(at + bytes, std::min(kPiece, end - at - bytes));
    file.populate(at, bytes);
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  file.drop(begin, end - begin);
  return static_cast<double>(end - begin) * 1e-9 / seconds;
}

double measure_mapping(const MappedFile& file, size_t bytes, ThreadPool& threads) {
  constexpr size_t kPage = 4096;
  const size_t part = bytes / static_cast<size_t>(threads.num_threads()) / kPage * kPage;
  if (part == 0)
    return 0;
  file.unmap(0, bytes);
  const double seconds = best_seconds(1, [&] {
    threads.run([&](int idx) {
      unsigned sum = 0;
      const std::byte* from = file.bytes().data() + static_cast<size_t>(idx) * part;
      for (size_t i = 0; i < part; i += kPage)
        sum += static_cast<unsigned>(from[i]);
      volatile unsigned keep = sum;
      static_cast<void>(keep);
    });
  });
  return static_cast<double>(part) * threads.num_threads() * 1e-9 / seconds;
}

Machine measure_machine(const kernels::Table& table, ThreadPool& threads) {
  Machine machine;
  machine.isa = table.isa;
  machine.num_threads = threads.num_threads();
  machine.read = measure_read(table, threads);
  for (int64_t i = 0; i < table.num_peaks; ++i)
    machine.arithmetic.push_back(measure_peak(table.peaks[i], threads));
  return machine;
}

} // namespace pinhole
