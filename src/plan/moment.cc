#include "plan/moment.h"

#include "base/checked.h"
#include "base/memory_limit.h"
#include "plan/layout.h"
#include "plan/machine.h"
#include "plan/pages.h"
#include "plan/work.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <sys/resource.h>
#include <vector>

namespace pinhole {

namespace {

// What a token reads, up to several times the largest shared caches: a small model's weights stay
// in them.
constexpr int64_t kLeastSample = int64_t{2} << 20, kMostSample = int64_t{512} << 20;
constexpr int64_t kTouchSample = int64_t{64} << 20;
constexpr int64_t kShortSample = int64_t{256} << 20; // of tokens that one thread may decode alone
constexpr int64_t kFileSample = int64_t{128} << 20;  // below it the pages' size hardly matters
constexpr int64_t kMatrices = 4;                     // in a sample, at least
constexpr int64_t kColumns = 2048;
constexpr int64_t kPieces = 16, kMostPieceRows = 256, kPieceStep = 16;
constexpr int64_t kRoomShare = 8;
constexpr int kMeetings = 500;
constexpr int kRounds = 8; // of all kinds in turn
constexpr double kSliceSeconds = 0.01;
constexpr double kLeastShare = 0.05; // of the bytes of a token, that a format is measured for

double seconds_of(FunctionRef<void()> work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A kind of work: so much of it in so many seconds.
struct Sum {
  double amount = 0;
  double seconds = 0;
  double rate() const { return seconds > 0 ? amount / seconds : 0; }
};

// One row of x by matrices of one format that follow each other in memory, each dealt out by the
// piece with a meeting of the threads after it, as the engine does.
class DecodeRun {
 public:
  DecodeRun(const KernelChoice& choice, FormatId format, int64_t sample_bytes, int num_threads)
      : kernel_(choice.table->matmul(format, 1, choice.exact)), format_(format),
        row_bytes_(row_bytes(format, kColumns)),
        piece_rows_(
            std::clamp(sample_bytes / kMatrices / kPieces / row_bytes_ / kPieceStep * kPieceStep,
                       kPieceStep, kMostPieceRows)),
        x_(kernel_->x_bytes(1, kColumns)), y_(kPieces * piece_rows_ * 4),
        scratch_bytes_(round_up(kernel_->scratch_bytes(1, kColumns), 4096)),
        scratch_(scratch_bytes_ * num_threads) {
    const Pages values(kColumns * 4);
    kernel_->pack_x(values.floats(), kColumns, 1, kColumns, 0, 1, x_.data());
  }

  FormatId format() const { return format_; }

  void run(std::span<const std::byte> memory, ThreadPool& threads, bool alone, Sum& sum) {
    const auto matrix_bytes = static_cast<size_t>(kPieces * piece_rows_ * row_bytes_);
    for (double seconds = 0; seconds < kSliceSeconds;) {
      if (at_ + matrix_bytes > memory.size())
        at_ = 0;
      std::atomic<int64_t> next{0};
      const auto take_pieces = [&](int idx) {
        for (int64_t piece = next.fetch_add(1); piece < kPieces; piece = next.fetch_add(1))
          multiply(memory.data() + at_, piece * piece_rows_, idx);
      };
      const double took = seconds_of([&] {
        if (alone)
          threads.run_alone(take_pieces);
        else
          threads.run(take_pieces);
      });
      at_ += matrix_bytes;
      seconds += took;
      sum.amount += static_cast<double>(matrix_bytes) * 1e-9;
      sum.seconds += took;
    }
  }

 private:
  void multiply(const std::byte* matrix, int64_t row, int thread_idx) const {
    kernels::MatmulArgs args{};
    args.x = x_.data();
    args.w = matrix + row * row_bytes_;
    args.w_row_bytes = row_bytes_;
    args.y = y_.floats() + row;
    args.y_stride = kPieces * piece_rows_;
    args.m = 1;
    args.n = piece_rows_;
    args.k = kColumns;
    args.scratch = scratch_.data() + thread_idx * scratch_bytes_;
    kernel_->run(args);
  }

  const kernels::MatmulKernel* kernel_;
  FormatId format_;
  int64_t row_bytes_;
  int64_t piece_rows_;
  size_t at_ = 0;
  Pages x_, y_;
  int64_t scratch_bytes_;
  Pages scratch_;
};

// What decoding one token reads.
struct TokenBytes {
  double all = 0;
  std::vector<FormatId> formats; // those that matter
};

TokenBytes token_bytes(const Graph& text) {
  WorkShape token;
  token.rows = {1, 1};
  std::array<double, std::size(kFormats)> bytes{};
  TokenBytes out;
  for (const Op& op : text.ops()) {
    for (const MatmulPart& part : op.parts) {
      const double here = part_work(text, op, part, token).weight_bytes;
      bytes[static_cast<size_t>(kernel_format(text.weight(part.weight)))] += here;
      out.all += here;
    }
    if (op.kind == OpKind::kMoe) {
      const double here = op_work(text, op, token).weight_bytes;
      bytes[static_cast<size_t>(kernel_format(text.weight(op.gate)))] += here;
      out.all += here;
    }
  }
  for (const FormatInfo& info : kFormats) {
    if (out.all > 0 && bytes[static_cast<size_t>(info.id)] >= kLeastShare * out.all)
      out.formats.push_back(info.id);
  }
  return out;
}

int64_t involuntary_switches() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

} // namespace

Disturbance::Disturbance()
    : switches_(involuntary_switches()), start_(std::chrono::steady_clock::now()) {}

bool Disturbance::are_many(int64_t switches, double seconds) {
  // Two threads on two cores: 43 a second on an idle machine, 290 beside a compiler. A few say
  // nothing, however short the time was.
  constexpr double kManyPerSecond = 120;
  constexpr double kFew = 10;
  return static_cast<double>(switches) > kFew + kManyPerSecond * seconds;
}

bool Disturbance::disturbed() const {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  return are_many(involuntary_switches() - switches_, seconds);
}

bool Disturbance::likely() {
  double load = 0; // of the last minute
  return ::getloadavg(&load, 1) == 1 && load > 0.5;
}

void measure_moment(const Graph& text, const MappedFile* weights, const KernelChoice& kernels,
                    ThreadPool& threads, KernelRates& rates) {
  const TokenBytes token = token_bytes(text);
  // A small part of what may be used: measuring must not be what memory runs out of.
  const int64_t most =
      std::clamp(memory_limit().usable_bytes() / kRoomShare, kLeastSample, kMostSample);
  const int64_t sample = std::clamp(static_cast<int64_t>(token.all), kLeastSample, most);
  const bool from_file = weights != nullptr && sample >= kFileSample &&
                         static_cast<int64_t>(weights->bytes().size()) >= sample;
  const Pages own(from_file ? 0 : sample);
  if (own.data() == nullptr)
    return;
  std::span<const std::byte> memory{own.data(), static_cast<size_t>(sample)};
  if (from_file) {
    memory = weights->bytes().first(static_cast<size_t>(sample));
    rates.map_gb_per_s = measure_mapping(*weights, memory.size(), threads);
  } else {
    const size_t part = memory.size() / static_cast<size_t>(threads.num_threads());
    threads.run(
        [&](int idx) { std::memset(own.data() + static_cast<size_t>(idx) * part, 0, part); });
  }

  rates.touch_gb_per_s = measure_touch(std::min(sample, kTouchSample), threads);

  std::vector<DecodeRun> runs;
  for (const FormatId format : token.formats)
    runs.emplace_back(kernels, format, sample, threads.num_threads());
  std::vector<Sum> sums(runs.size()), sums_alone(runs.size());
  Sum read, arithmetic, meetings;
  const kernels::PeakLoop* peak = kernels.table->num_peaks > 0 ? &kernels.table->peaks[0] : nullptr;
  const int64_t part = static_cast<int64_t>(memory.size()) / threads.num_threads() / 4096 * 4096;
  int64_t peak_rounds = 1000;
  while (peak != nullptr && seconds_of([&] { peak->run(peak_rounds); }) < kSliceSeconds)
    peak_rounds *= 2;
  for (int round = 0; round < kRounds; ++round) {
    read.seconds += seconds_of([&] {
      threads.run([&](int idx) { kernels.table->read_memory(memory.data() + idx * part, part); });
    });
    read.amount += static_cast<double>(part * threads.num_threads()) * 1e-9;
    for (size_t i = 0; i < runs.size(); ++i) {
      runs[i].run(memory, threads, false, sums[i]);
      if (sample <= kShortSample)
        runs[i].run(memory, threads, true, sums_alone[i]);
    }
    meetings.seconds += seconds_of([&] {
      threads.run([&](int) {
        for (int i = 0; i < kMeetings; ++i)
          threads.barrier();
      });
    });
    meetings.amount += kMeetings;
    if (peak == nullptr)
      continue;
    arithmetic.seconds += seconds_of([&] { threads.run([&](int) { peak->run(peak_rounds); }); });
    arithmetic.amount +=
        static_cast<double>(peak_rounds * peak->ops_per_round * threads.num_threads()) * 1e-9;
  }
  rates.op_seconds = meetings.seconds / meetings.amount + kNextOpSeconds;
  if (from_file)
    weights->unmap(0, memory.size());

  rates.read_gb_per_s = read.rate();
  for (size_t i = 0; i < runs.size(); ++i) {
    FormatRate& rate = rates.formats[static_cast<size_t>(runs[i].format())];
    rate.memory_gb_per_s = sums[i].rate();
    rate.alone_gb_per_s = sums_alone[i].rate();
  }
  if (peak != nullptr)
    rates = rates_at(rates, arithmetic.rate());
}

} // namespace pinhole
