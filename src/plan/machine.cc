#include "plan/machine.h"

#include "base/direct_file.h"
#include "base/function_ref.h"
#include "plan/pages.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <sys/mman.h>
#include <thread>
#include <vector>

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

// A part of a file that stands for it.
struct Sample {
  uint64_t begin = 0, end = 0;
};

Sample middle_of(const MappedFile& file) {
  constexpr uint64_t kSample = 512u << 20, kBlock = DirectFile::kBlockBytes;
  const uint64_t size = file.bytes().size();
  const uint64_t begin = size > kSample ? (size - kSample) / 2 / kBlock * kBlock : 0;
  return {begin, std::min(size, begin + kSample)};
}

// GB/s of `work` on a sample that the page cache forgets before and after; 0 for none.
double forgotten_rate(const MappedFile& file, const Sample& sample, FunctionRef<void()> work) {
  const uint64_t bytes = sample.end - sample.begin;
  if (bytes == 0)
    return 0;
  file.drop(sample.begin, bytes);
  const double seconds = best_seconds(1, work);
  file.drop(sample.begin, bytes);
  return static_cast<double>(bytes) * 1e-9 / seconds;
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
  constexpr uint64_t kPiece = 16u << 20;
  const Sample sample = middle_of(file);
  return forgotten_rate(file, sample, [&] {
    for (uint64_t at = sample.begin; at < sample.end; at += kPiece) {
      const uint64_t bytes = std::min(kPiece, sample.end - at);
      file.prefetch(at + bytes, std::min(kPiece, sample.end - at - bytes));
      file.populate(at, bytes);
    }
  });
}

double measure_stream(const MappedFile& file) {
  constexpr auto kPiece = static_cast<uint64_t>(kStreamReadBytes);
  constexpr uint64_t kBlock = DirectFile::kBlockBytes;
  const Sample sample = middle_of(file);
  const DirectFile direct(file);
  const Pages pages(kStreamReaders * kStreamReadBytes);
  if (pages.data() == nullptr)
    return 0;
  return forgotten_rate(file, sample, [&] {
    std::atomic<uint64_t> next{sample.begin};
    std::vector<std::thread> readers;
    for (int i = 0; i < kStreamReaders; ++i) {
      readers.emplace_back([&, to = pages.data() + i * kStreamReadBytes] {
        for (uint64_t at = next.fetch_add(kPiece); at < sample.end; at = next.fetch_add(kPiece)) {
          const uint64_t blocks = (std::min(kPiece, sample.end - at) + kBlock - 1) / kBlock;
          direct.read(at, {to, blocks * kBlock});
        }
      });
    }
    for (std::thread& reader : readers)
      reader.join();
  });
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

double measure_touch(int64_t bytes, ThreadPool& threads) {
  constexpr int64_t kPage = 4096;
  const Pages memory(bytes);
  const int64_t part = bytes / threads.num_threads() / kPage * kPage;
  if (memory.data() == nullptr || part == 0)
    return 0;
  const double seconds = best_seconds(1, [&] {
    threads.run([&](int idx) {
      std::byte* from = memory.data() + idx * part;
      for (int64_t i = 0; i < part; i += kPage)
        from[i] = std::byte{1};
    });
  });
  return static_cast<double>(part * threads.num_threads()) * 1e-9 / seconds;
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
