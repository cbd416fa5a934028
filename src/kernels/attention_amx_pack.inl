// Attention on AMX: sizes of its blocks, the layout of its scratch, and the packing of K and V to
// bf16 tiles. See attention_amx.inl.
#include "kernels/amx_tiles.inl"

namespace pinhole::kernels {
namespace {

constexpr int64_t kAmxRows = 32;   // rows of (query, head) in a block: two tiles
constexpr int64_t kScoreKeys = 32; // keys whose exponentials are taken together
// Keys between additions to O: loading and storing O costs more than reading P from L2, but a third
// of a row's keys must be left to overlap with (kernels_bench amx/attention, Xeon with AMX).
constexpr int64_t kValueKeys = 1024, kMinValueKeys = 256;
constexpr float kSumLimit = 0x1p60f; // of probabilities: raise the reference
constexpr float kScoreUnit = 128.0f; // scores are in 1/128 of log2
constexpr float kNoScore = -1e30f;   // a masked score

PINHOLE_INLINE int64_t amx_pad(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Scratch of one thread. Tiles are 1 KiB.
struct AmxAttention {
  uint8_t* k;                 // [keys / 16][head_dim / 32][16 keys][32 elements] bf16
  uint8_t* v;                 // [keys / 32][head_dim / 16][16 elements][32 keys] bf16
  uint8_t* q;                 // [head_dim / 32][2][16 pairs of elements][16 rows] bf16
  uint8_t* p;                 // [kValueKeys / 32][2][16 pairs of keys][16 rows] bf16
  float* scores;              // 2 of [kScoreKeys / 16][2][16 keys][16 rows]
  float* out;                 // [head_dim / 16][2][16 elements][16 rows]
  float* rows;                // [kAmxRows][head_dim / 32 * 32]: rows of Q or of O
  int64_t q_steps, out_tiles; // head_dim in tiles of 32 and of 16
};

PINHOLE_INLINE int64_t amx_attention_layout(void* scratch, int64_t num_kv, int64_t head_dim,
                                            AmxAttention* to) {
  uint8_t* base = static_cast<uint8_t*>(scratch);
  int64_t keys = amx_pad(num_kv, kScoreKeys), at = 0;
  auto take = [&](int64_t bytes) {
    uint8_t* p = base + at;
    at += bytes;
    return p;
  };
  to->q_steps = amx_pad(head_dim, 32) / 32;
  to->out_tiles = amx_pad(head_dim, 16) / 16;
  to->k = take(keys * to->q_steps * 64);
  to->v = take(keys * to->out_tiles * 32);
  to->q = take(to->q_steps * 2048);
  to->p = take(2 * kValueKeys * kAmxRows * 2);
  to->scores = reinterpret_cast<float*>(take(2 * kScoreKeys * kAmxRows * 4));
  to->out = reinterpret_cast<float*>(take(to->out_tiles * 2048));
  to->rows = reinterpret_cast<float*>(take(kAmxRows * to->q_steps * 128));
  return at;
}

int64_t amx_attention_scratch_bytes(int64_t, int64_t num_kv, int64_t head_dim) {
  AmxAttention unused;
  return amx_attention_layout(nullptr, num_kv, head_dim, &unused);
}

// Elements [i, i + 32) of a row of K or V, zeros beyond head_dim.
template <KvType kv> PINHOLE_INLINE __m512i kv_bf16(const char* row, int64_t i, int64_t head_dim) {
  int64_t left = head_dim - i;
  __m512 low = left > 0 ? load_kv<kv>(row, i, left < 16 ? left : 16) : v_zero();
  __m512 high = left > 16 ? load_kv<kv>(row, i + 16, left < 32 ? left - 16 : 16) : v_zero();
  return to_bf16(low, high);
}

// Two vectors of 32 bf16, as pairs (a[i], b[i]) of elements 0-15 and 16-31.
PINHOLE_INLINE void interleave_bf16(__m512i a, __m512i b, __m512i* first, __m512i* second) {
  alignas(64) static constexpr uint16_t kFirst[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                      37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                      11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  __m512i index = _mm512_load_si512(kFirst);
  *first = _mm512_permutex2var_epi16(a, index, b);
  *second = _mm512_permutex2var_epi16(a, _mm512_add_epi16(index, _mm512_set1_epi16(16)), b);
}

// Keys [begin, end), begin a multiple of kScoreKeys; zeros up to the next multiple.
template <KvType kv>
void amx_pack_kv(const AttentionArgs& args, const AmxAttention& s, int64_t kv_head, int64_t begin,
                 int64_t end) {
  const char* k = static_cast<const char*>(args.k) + kv_head * args.k_head_bytes;
  const char* v = static_cast<const char*>(args.v) + kv_head * args.v_head_bytes;
  int64_t padded = amx_pad(end, kScoreKeys);
  // Rows of one head lie far apart: the core does not fetch them ahead by itself.
  auto fetch = [&](const char* base, int64_t row_bytes, int64_t head_bytes, int64_t key) {
    const char* row = base + (key < end ? key : end - 1) * row_bytes;
    for (int64_t i = 0; i < head_bytes; i += 64)
      __builtin_prefetch(row + i);
  };
  int64_t used_bytes = kv_head_row_bytes<kv>(args.head_dim);
  for (int64_t key = begin; key < padded; ++key) {
    uint8_t* to = s.k + key / 16 * s.q_steps * 1024 + key % 16 * 64;
    fetch(k, args.k_row_bytes, used_bytes, key + 24);
    for (int64_t d = 0; d < s.q_steps; ++d) {
      __m512i x = key < end ? kv_bf16<kv>(k + key * args.k_row_bytes, d * 32, args.head_dim)
                            : _mm512_setzero_si512();
      _mm512_store_si512(to + d * 1024, x);
    }
  }
  for (int64_t key = begin; key < padded; key += 32) {
    for (int64_t i = 0; i < 32; ++i)
      fetch(v, args.v_row_bytes, used_bytes, key + 32 + i);
    for (int64_t d = 0; d < s.out_tiles; d += 2) {
      __m512i low[16], high[16]; // [pair of keys][elements d * 16 ...], each a dword of two keys
      for (int64_t pair = 0; pair < 16; ++pair) {
        __m512i x[2];
        for (int64_t j = 0; j < 2; ++j) {
          int64_t row = key + 2 * pair + j;
          x[j] = row < end ? kv_bf16<kv>(v + row * args.v_row_bytes, d * 16, args.head_dim)
                           : _mm512_setzero_si512();
        }
        interleave_bf16(x[0], x[1], &low[pair], &high[pair]);
      }
      uint8_t* to = s.v + (key / 32 * s.out_tiles + d) * 1024;
      transpose_16(low);
      for (int i = 0; i < 16; ++i)
        _mm512_store_si512(to + i * 64, low[i]);
      if (d + 1 < s.out_tiles) {
        transpose_16(high);
        for (int i = 0; i < 16; ++i)
          _mm512_store_si512(to + 1024 + i * 64, high[i]);
      }
    }
  }
}

} // namespace
} // namespace pinhole::kernels
