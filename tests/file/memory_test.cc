// Memory of the readers on hostile files: below twice the file's size plus a constant.
//
// operator new is counted for this test program; mappings do not count, they are the page cache's.
#include "file/gguf_reader.h"
#include "file/hf_reader.h"
#include "file/safetensors.h"
#include "support/temp_dir.h"
#include "support/write_gguf.h"
#include "support/write_safetensors.h"

#include <atomic>
#include <cstdlib>
#include <gtest/gtest.h>
#include <malloc.h>
#include <new>

namespace {
std::atomic<int64_t> live_bytes{0};
std::atomic<int64_t> peak_bytes{0};

void* counted_alloc(std::size_t size) {
  void* block = std::malloc(size == 0 ? 1 : size);
  if (block == nullptr)
    throw std::bad_alloc();
  const int64_t now = live_bytes += static_cast<int64_t>(malloc_usable_size(block));
  int64_t peak = peak_bytes;
  while (now > peak && !peak_bytes.compare_exchange_weak(peak, now)) {
  }
  return block;
}

void counted_free(void* block) noexcept {
  if (block != nullptr)
    live_bytes -= static_cast<int64_t>(malloc_usable_size(block));
  std::free(block);
}
} // namespace

void* operator new(std::size_t size) { return counted_alloc(size); }
void* operator new[](std::size_t size) { return counted_alloc(size); }
void operator delete(void* block) noexcept { counted_free(block); }
void operator delete[](void* block) noexcept { counted_free(block); }
void operator delete(void* block, std::size_t) noexcept { counted_free(block); }
void operator delete[](void* block, std::size_t) noexcept { counted_free(block); }

namespace pinhole {
namespace {

using namespace pinhole::testing;

constexpr int64_t kMiB = 1 << 20;

template <class F> int64_t peak_of(const F& work) {
  const int64_t before = live_bytes;
  peak_bytes = before;
  work();
  return peak_bytes - before;
}

TEST(Memory, HugeClaimsAllocateNothing) {
  GgufWriter writer;
  writer.key_string("k", "v").tensor_f32("t", {1}, {1});
  for (const uint64_t claim : {uint64_t{1} << 60, uint64_t{1} << 40, UINT64_MAX}) {
    GgufWriter tensors = writer, keys = writer;
    tensors.claimed_tensors = claim;
    keys.claimed_keys = claim;
    GgufWriter array;
    array.key_raw("huge", kTypeArray, raw_bytes<uint32_t>(kTypeF32) + raw_bytes<uint64_t>(claim));
    GgufWriter text;
    text.key_raw("huge", kTypeString, raw_bytes<uint64_t>(claim));
    for (const std::string& bytes : {tensors.bytes(), keys.bytes(), array.bytes(), text.bytes()}) {
      EXPECT_LT(peak_of([&] { EXPECT_FALSE(GgufReader::parse(as_bytes(bytes), "x")); }), 64 << 10);
    }
  }
}

TEST(Memory, TablesOfTheSmallestRows) {
  GgufWriter keys;
  for (int i = 0; i < 65536; ++i)
    keys.key<uint8_t>(raw_bytes<uint32_t>(i + 1), kTypeU8, 0);
  GgufWriter tensors;
  for (int i = 0; i < 65536; ++i)
    tensors.tensor_f32(raw_bytes<uint32_t>(i + 1), {1}, {0});
  for (const std::string& bytes : {keys.bytes(), tensors.bytes()}) {
    const auto limit = 2 * static_cast<int64_t>(bytes.size()) + 16 * kMiB;
    EXPECT_LT(peak_of([&] { EXPECT_TRUE(GgufReader::parse(as_bytes(bytes), "x")); }), limit);
  }
}

TEST(Memory, LargeArraysStayInTheFile) {
  const std::string bytes =
      GgufWriter().key_array<uint8_t>("a", kTypeU8, std::vector<uint8_t>(32 * kMiB)).bytes();
  EXPECT_LT(peak_of([&] {
              const auto part = GgufReader::parse(as_bytes(bytes), "x");
              ASSERT_TRUE(part);
              EXPECT_FALSE(part->meta.array("a").value()->integers()); // would be 8 times the file
            }),
            kMiB);
}

TEST(Memory, HostileSafetensorsHeaders) {
  const int64_t size = 32 * kMiB;
  std::string zeros = R"({"t":{"shape":[)";
  while (static_cast<int64_t>(zeros.size()) < size)
    zeros += "0,";
  std::string skipped = R"({"t":{"other":[)";
  while (static_cast<int64_t>(skipped.size()) < size)
    skipped += "[],";
  std::string names = "{";
  for (int i = 0; static_cast<int64_t>(names.size()) < size / 2; ++i) {
    names += '"' + std::to_string(i) + R"(":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)";
  }
  const std::string spaces = "{" + std::string(size, ' ') + "}";
  const std::string text = "{\"" + std::string(size, 'x') + "\":1}";
  const std::string open(size, '[');
  for (const std::string& header : {zeros, skipped, names, spaces, text, open}) {
    const std::string bytes = safetensors_raw(header, "");
    const auto limit = 2 * static_cast<int64_t>(bytes.size()) + 16 * kMiB;
    EXPECT_LT(peak_of([&] { EXPECT_FALSE(parse_safetensors(as_bytes(bytes), "x")); }), limit)
        << header.substr(0, 20);
  }
}

TEST(Memory, HostileConfigs) {
  for (const char* item : {"0,", "[],", "{},", "[0],", "{\"\":{}},", "\"\","}) {
    std::string text = "{\"a\":[";
    while (static_cast<int64_t>(text.size()) < 8 * kMiB)
      text += item;
    text += "0]}";
    EXPECT_LT(peak_of([&] { EXPECT_FALSE(parse_config(text, "x")); }), kMiB) << item;
    text.resize(256 << 10);
    text.resize(text.rfind(item) + std::string_view(item).size());
    text += "0]}";
    EXPECT_LT(peak_of([&] { EXPECT_TRUE(parse_config(text, "x")); }), 64 * kMiB) << item;
  }
}

} // namespace
} // namespace pinhole
