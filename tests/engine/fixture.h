// A model of the golden collection (or the bundled one) and a prompt of random tokens for it.
#pragma once

#include "engine/session.h"
#include "kernels/select.h"
#include "support/describe.h"

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace pinhole::testing {

inline KernelChoice kernel_choice(bool exact, int threads = 1,
                                  kernels::KvType kv_type = kernels::KvType::kF32) {
  return {take(kernels::select()), exact, threads, kv_type};
}

inline RunShape shape_of(int64_t context, int64_t chunk, int64_t patches = 0,
                         int64_t features = 0) {
  RunShape shape;
  shape.context_tokens = context;
  shape.chunk_tokens = chunk;
  shape.max_patches = patches;
  shape.feature_tokens = features;
  return shape;
}

inline PromptToken text_token(int32_t id, size_t position) {
  const auto at = static_cast<int32_t>(position);
  return {id, {at, at, at}};
}

// Random text tokens at positions 0, 1, 2 …
inline std::vector<PromptToken> random_prompt(const Model& model, size_t length, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<PromptToken> out;
  for (size_t i = 0; i < length; ++i) {
    out.push_back(
        text_token(static_cast<int32_t>(random() % static_cast<uint32_t>(model.vocab_size)), i));
  }
  return out;
}

// A picture of smooth random pixels as patch rows, and a digest of its own.
struct FakePicture {
  PatchGrid grid;
  std::vector<float> patches; // [patches, patch_elements]
  Sha256Digest digest{};

  FakePicture(const Model& model, int64_t height, int64_t width, uint32_t seed)
      : FakePicture(model, PatchGrid{height, width, model.pictures->merge_size}, seed) {}
  FakePicture(const Model& model, const PatchGrid& of, uint32_t seed) : grid(of) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    patches.resize(static_cast<size_t>(grid.patches() * model.pictures->patch_elements()));
    for (float& value : patches)
      value = normal(random);
    std::memcpy(digest.data(), &seed, sizeof seed);
    digest[31] = 1;
  }
  int64_t row_elements() const { return static_cast<int64_t>(patches.size()) / grid.patches(); }
  void write(int64_t begin, int64_t end, float* out) const {
    std::copy(patches.begin() + begin * row_elements(), patches.begin() + end * row_elements(),
              out);
  }
};

// A picture on a canvas of rows x cols tiles.
inline FakePicture tiled_picture(const Model& model, int64_t rows, int64_t cols, uint32_t seed) {
  const PictureSpec& spec = *model.pictures;
  const int64_t side = spec.square_px / spec.patch_size;
  return {model, PatchGrid{side, side, 1, spec.max_tiles, rows, cols}, seed};
}

inline Session::EncodedPicture encode(Session& session, const FakePicture& picture) {
  return take(session.encode(
      picture.digest, picture.grid,
      [&](int64_t begin, int64_t end, float* out) { picture.write(begin, end, out); },
      {&picture.digest, 1}));
}

// A prompt with the encoded picture between two runs of text.
inline std::vector<PromptToken> picture_prompt(const Model& model, const FakePicture& picture,
                                               const Session::EncodedPicture& encoded,
                                               uint32_t seed) {
  std::vector<PromptToken> out = random_prompt(model, 5, seed);
  const int64_t width = picture.grid.width / picture.grid.merge;
  const auto start = static_cast<int32_t>(out.size());
  for (int32_t t = 0; t < encoded.tokens; ++t) {
    PromptToken token{
        1,
        {start, start + t / static_cast<int32_t>(width), start + t % static_cast<int32_t>(width)}};
    token.feature_row = encoded.first_row + t;
    std::memcpy(&token.picture_key, picture.digest.data(), sizeof token.picture_key);
    out.push_back(token);
  }
  for (const PromptToken& token : random_prompt(model, 6, seed + 1)) {
    PromptToken later = token;
    for (int32_t& axis : later.position)
      axis += start + 50;
    out.push_back(later);
  }
  return out;
}

inline std::vector<float> copy_of(std::span<const float> values) {
  return {values.begin(), values.end()};
}

inline float max_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  float worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const float difference = std::abs(a[i] - b[i]);
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
  }
  return worst;
}

inline double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

} // namespace pinhole::testing
