// Matrices as pieces: every row is in exactly one, whatever the sizes.
#include "engine/op_runner.h"

#include <gtest/gtest.h>
#include <set>
#include <thread>
#include <vector>

namespace pinhole {
namespace {

TEST(Pieces, CoverEveryRowOnceAndStartAtSteps) {
  for (const int64_t n : {1, 3, 16, 100, 768, 4097, 151936})
    for (const int64_t row_bytes : {18, 1152, 100000})
      for (const int64_t step : {1, 4, 32})
        for (const int threads : {1, 2, 7})
          for (const int64_t m : {1, 500}) {
            const Pieces pieces = pieces_of(n, row_bytes, step, threads, m);
            EXPECT_GE(pieces.count * pieces.rows, n);
            EXPECT_LT((pieces.count - 1) * pieces.rows, n);
            if (pieces.count > 1)
              EXPECT_EQ(pieces.rows % step, 0);
          }
}

TEST(Pieces, ALargeMatrixHasEnoughForAllThreads) {
  EXPECT_EQ(pieces_of(19456, 1440, 4, 2, 1).count, 16);
  EXPECT_EQ(pieces_of(19456, 1440, 4, 2, 500).count, 4);
  EXPECT_EQ(pieces_of(19456, 1440, 4, 1, 1).count, 1);
  EXPECT_EQ(pieces_of(256, 512, 4, 2, 1).count, 2) << "a small one is not cut further";
}

TEST(Pieces, ADealGivesEachToOneThread) {
  Deal deal;
  std::vector<std::vector<int64_t>> taken(4);
  std::vector<std::thread> threads;
  for (std::vector<int64_t>& mine : taken)
    threads.emplace_back([&deal, &mine] {
      for (int64_t piece = deal.next(); piece < 1000; piece = deal.next())
        mine.push_back(piece);
    });
  for (std::thread& thread : threads)
    thread.join();
  std::set<int64_t> all;
  for (const std::vector<int64_t>& mine : taken)
    all.insert(mine.begin(), mine.end());
  EXPECT_EQ(all.size(), 1000u);
  EXPECT_EQ(*all.rbegin(), 999);
}

} // namespace
} // namespace pinhole
