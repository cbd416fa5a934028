// The forward pass as data: a family describes it with these ops, the planner lays it out, the
// engine runs it. Nothing here computes.
//
// Every value is f32 (or i32 for index inputs) rows in an arena: [rows, cols] where the row count
// is symbolic (RowCount), so that one graph serves every chunk of tokens or picture up to the
// planned maximum. Values may share a Buffer: slices of columns, reshapes and in-place results.
// Matmul is y[m,n] = x[m,k] * W[n,k]^T.
#pragma once

#include "base/result.h"
#include "file/model_file.h"

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

enum class Activation : uint8_t { kNone, kGeluTanh, kGeluErf, kSilu };

// What a graph's row counts are multiples of; the engine binds numbers for every run.
enum class RowSymbol : uint8_t {
  kItems,   // tokens of this chunk, or patches of this picture
  kOutputs, // rows whose logits are wanted
  kOne,     // 1
};

struct RowCount {
  RowSymbol symbol = RowSymbol::kItems;
  int64_t divide = 1; // rows = value of symbol / divide + plus
  int64_t plus = 0;   // rows beside these: a class token
};

// Numbers for the symbols.
struct RowBinding {
  int64_t items = 0;
  int64_t outputs = 0;
  int64_t count(RowCount rows) const {
    const int64_t symbol = rows.symbol == RowSymbol::kItems     ? items
                           : rows.symbol == RowSymbol::kOutputs ? outputs
                                                                : 1;
    return symbol / rows.divide + rows.plus;
  }
};

enum class ElementType : uint8_t { kF32, kI32 };

using BufferId = int32_t;
using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;

// Memory in the arena: rows x cols elements of 4 bytes.
struct Buffer {
  RowCount rows;
  int64_t cols = 0;
  ElementType type = ElementType::kF32;
  bool is_input = false;  // written before the run
  bool is_output = false; // read after the run
};

// A view of a buffer: row r starts at element r * stride + offset.
struct Value {
  BufferId buffer = 0;
  RowCount rows;
  int64_t cols = 0;
  int64_t stride = 0;
  int64_t offset = 0;
};

// What the engine writes into an input before a run.
enum class InputKind : uint8_t {
  kTokenIds,       // i32 [tokens]
  kPositions,      // i32 [tokens, axes]: 1 for plain rope, 3 (time, height, width) for M-RoPE
  kKeyBegin,       // i32 [items]: first key that the row sees
  kKeyEnd,         // i32 [items]: one past the last
  kFeatureRows,    // i32 [tokens]: row of the picture features that stands here, -1 for text
  kOutputRows,     // i32 [outputs]: rows of the chunk whose logits are wanted
  kPatches,        // f32 [patches, patch_elements], in merge-block order
  kPatchPositions, // i32 [patches, 2]: row, column of each patch
  kTableRows,      // i32 [patches, 4]: corners in the learned position table
  kTableWeights,   // f32 [patches, 4]: their bilinear weights
  kWindowOrder,    // i32 [items]: which row comes here when rows are sorted by window
  kWindowInverse,  // i32 [merged items]: the way back, on merged rows
  kTileRows,       // i32 [items]: see TileNumbering (vision_inputs.h), which `parameter` is one of
  // Of rows of the picture cache, and whether a picture stands before the token or is it:
  kPictureKeyBegin, // i32 [tokens]
  kPictureKeyEnd,   // i32 [tokens]
  kSeesPicture,     // i32 [tokens]: 1 or 0
};

struct Input {
  InputKind kind;
  ValueId value = kNoValue;
  // kTableRows, kTableWeights: side of the table. Key ranges: 0 when all keys are seen, else
  // windowed (text: as many keys as this, with the token's own).
  int64_t parameter = 0;
};

// What a tensor is for; `inspect` sums sizes by it and quantisation recipes decide by it.
enum class Role : uint8_t {
  kTextEmbedding,
  kTextAttention,
  kTextMlp,
  kTextNorm,
  kTextRouter,
  kTextExpert,
  kTextOutput,
  kVisionEmbedding,
  kVisionAttention,
  kVisionMlp,
  kVisionNorm,
  kProjector,
};
std::string_view role_name(Role role);
enum class Part : uint8_t { kText, kVision, kProjector };
Part part_of(Role role);

// A weight, or some of its rows: [rows, cols] as the matmul wants it. Norms and biases are [1, n].
struct Weight {
  const Tensor* tensor = nullptr;
  const std::byte* data = nullptr; // first row
  FormatId format = FormatId::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride_bytes = 0;
  Role role = Role::kTextMlp;
  // Experts: how many matrices of [rows, cols] follow each other, and the bytes between them.
  int64_t experts = 1;
  int64_t expert_stride_bytes = 0;
  // Stored [cols, rows]: Qwen3-VL-MoE's experts on the hub, [experts, in, out]; Gemma 3's
  // projector.
  bool transposed = false;

  explicit operator bool() const { return tensor != nullptr; }
};
using WeightId = int32_t;
inline constexpr WeightId kNoWeight = -1;

enum class OpKind : uint8_t {
  kEmbed,          // y = rows of `weight` picked by ids
  kPutRows,        // y[i] = or += features[slot][rows[i]] where rows[i] >= 0, in place
  kGatherRows,     // y[i] = x[rows[i]], zeros where rows[i] < 0
  kGatherWeighted, // y += sum_j weights[i,j] * table[rows[i,j]], in place
  kPutVector,      // y[i] = or += `weight`, in place
  kRegroup,        // rows of a block side by side, column by column
  kMatmul,         // up to three weights that share x
  kRmsNorm,
  kLayerNorm,
  kAdd,
  kScale, // y[i] *= `weight`, in place
  kActivate,
  kGated,        // y = activation(gate) * up
  kRopeTable,    // cos, sin [rows, half] from positions
  kRope,         // in place
  kKvStore,      // keys and values of the chunk into the cache of `layer`
  kAttention,    // over the cache of `layer`, or over k, v values (vision)
  kRoute,        // softmax over experts, top-k, renormalise: ids and weights
  kMoe,          // y += sum of the chosen experts' gated MLPs
  kAddGated,     // y += gate * a, in rows that are marked
  kAddTableRows, // y[i] += gate * table[rows[i]] where rows[i] >= 0
  kPutColumns,   // column c of x becomes column begin + c * step of y
};
std::string_view op_name(OpKind kind);

// A learned factor: tanh of a tensor of one element, or what that leaves of 1. None: 1.
struct Gate {
  WeightId weight = kNoWeight;
  bool rest = false;
};

struct MatmulPart {
  WeightId weight = kNoWeight;
  WeightId bias = kNoWeight;
  ValueId y = kNoValue;
};

// One step. Which fields count depends on kind; see the builder functions below.
struct Op {
  OpKind kind = OpKind::kMatmul;
  ValueId x = kNoValue, y = kNoValue;
  ValueId a = kNoValue, b = kNoValue, c = kNoValue; // further inputs
  std::vector<MatmulPart> parts;
  WeightId weight = kNoWeight, bias = kNoWeight;
  WeightId gate = kNoWeight, up = kNoWeight, down = kNoWeight; // kMoe
  Activation activation = Activation::kNone;
  ValueId residual = kNoValue;
  float eps = 0, scale = 1;
  float offset = 0;  // kRmsNorm: added to the weights (Gemma keeps w of 1 + w)
  int64_t group = 0; // norms: elements that are normalised together (head_dim for q/k norms)
  int64_t heads = 0, kv_heads = 0, head_dim = 0, rot_dim = 0;
  int64_t top_k = 0;
  int32_t layer = -1; // cache layer
  // kKvStore, kAttention: keys and values are those of pictures (engine/picture_cache.h).
  bool of_pictures = false;
  // Skipped while the conversation has no picture: its results are not read then.
  bool needs_pictures = false;
  Gate factor;                 // kAddGated, kAddTableRows
  int64_t begin = 0, step = 1; // kPutColumns
  int32_t slot = 0;            // which set of picture features
  bool add = false;            // kPutRows, kPutVector: add instead of replace
  bool renormalise = true;
  std::vector<float> inv_freq; // kRopeTable
  std::vector<uint8_t> axis;   // kRopeTable: which position component drives frequency i
  bool interleaved = false;    // kRope: pairs (2i, 2i + 1) instead of (i, i + rot_dim / 2)
  float growth = 0;            // kRopeTable: see RopeScale
  int64_t growth_step = 0;
  int32_t block = -1; // transformer block, for reports
};

// Calls fn(id) for every weight that the op reads.
template <class Fn> void for_weights(const Op& op, Fn fn) {
  for (const MatmulPart& part : op.parts) {
    for (const WeightId id : {part.weight, part.bias}) {
      if (id != kNoWeight)
        fn(id);
    }
  }
  for (const WeightId id : {op.weight, op.bias, op.gate, op.up, op.down, op.factor.weight}) {
    if (id != kNoWeight)
      fn(id);
  }
}

class Graph {
 public:
  // --- description ---
  // A tensor that no file holds (yet), for weights to point at; the same one when the name is
  // known.
  const Tensor* declare_tensor(Tensor tensor);
  WeightId add_weight(const Weight& weight);
  // Plans with the weight in another format, whose blocks divide its rows; its bytes stay what they
  // are.
  void set_format(WeightId id, FormatId format);
  ValueId input(InputKind kind, int64_t cols, ElementType type, RowCount rows = {},
                int64_t parameter = 0);

  ValueId new_value(RowCount rows, int64_t cols); // an own buffer
  ValueId columns(ValueId value, int64_t begin, int64_t count);
  // [rows, cols] as [rows/factor, cols*factor]; needs whole, contiguous rows.
  ValueId merge_rows(ValueId value, int64_t factor);
  // Rows [begin, begin + count) of a value.
  ValueId rows(ValueId value, int64_t begin, RowCount count);

  ValueId embed(ValueId ids, WeightId table, float scale = 1.0f);
  void put_rows(ValueId x, ValueId rows, int32_t slot, bool add);
  ValueId gather_rows(ValueId x, ValueId rows, RowCount count);
  void add_table_rows(ValueId x, ValueId rows, WeightId table, Gate gate = {}); // x += ...
  void gather_weighted(ValueId x, ValueId rows, ValueId weights, WeightId table);
  // Every row of y = or += a vector, decoded.
  void put_vector(ValueId y, WeightId vector, bool add);
  // As merge_rows, but column by column: y[r, c * factor + i] = x[r * factor + i, c].
  ValueId regroup(ValueId x, int64_t factor);
  void scale(ValueId x, WeightId vector); // every row of x *= vector
  // y = activation(x W^T + bias) + residual. With residual the result takes the residual's place.
  ValueId matmul(ValueId x, WeightId weight, WeightId bias = kNoWeight,
                 Activation activation = Activation::kNone, ValueId residual = kNoValue);
  void matmul_into(ValueId y, ValueId x, WeightId weight, WeightId bias = kNoWeight);
  // Several weights that read the same x (q, k, v; gate, up); results in one buffer, side by side.
  std::vector<ValueId> matmul_shared(ValueId x, std::span<const MatmulPart> parts);
  ValueId rms_norm(ValueId x, WeightId weight, float eps, float offset = 0);
  void rms_norm_heads(ValueId x, WeightId weight, float eps, int64_t head_dim,
                      float offset = 0); // in place
  ValueId layer_norm(ValueId x, WeightId weight, WeightId bias, float eps);
  void add(ValueId x, ValueId other); // x += other
  // x += gate * other, where `rows` is not 0 (kNoValue: everywhere).
  void add_gated(ValueId x, ValueId other, Gate gate, ValueId rows = kNoValue);
  // y[i][begin + c * step] = x[i][c]
  void put_columns(ValueId x, ValueId y, int64_t begin, int64_t step = 1);
  ValueId gated(ValueId gate, ValueId up, Activation activation); // takes gate's place
  struct RopeAngles {
    ValueId cos, sin;
    int64_t rot_dim;
  };
  // Cosines and sines are multiplied by factor * (1 + growth * ln(1 + floor(position / step))), of
  // the first position component; growth 0: by factor.
  struct RopeScale {
    float factor = 1;
    float growth = 0;
    int64_t step = 1;
  };
  RopeAngles rope_table(ValueId positions, std::vector<float> inv_freq, std::vector<uint8_t> axis,
                        const RopeScale& scale);
  RopeAngles rope_table(ValueId positions, std::vector<float> inv_freq, std::vector<uint8_t> axis) {
    return rope_table(positions, std::move(inv_freq), std::move(axis), {});
  }
  void rope(ValueId x, const RopeAngles& angles, int64_t head_dim, bool interleaved = false);
  void kv_store(ValueId k, ValueId v, int32_t layer, int64_t kv_heads, int64_t head_dim);
  struct KeyRange {
    ValueId begin, end;
  };
  ValueId attention_cached(ValueId q, KeyRange keys, int32_t layer, int64_t heads, int64_t kv_heads,
                           int64_t head_dim, float scale);
  ValueId attention(ValueId q, ValueId k, ValueId v, KeyRange keys, int64_t heads, int64_t head_dim,
                    float scale);
  // Cross-attention: keys and values of a picture, stored when it is encoded and read by every
  // token that sees it.
  void store_picture_keys(ValueId k, ValueId v, int32_t layer, int64_t kv_heads, int64_t head_dim);
  ValueId attention_to_pictures(ValueId q, KeyRange keys, int32_t layer, int64_t heads,
                                int64_t kv_heads, int64_t head_dim, float scale);
  struct Routing {
    ValueId ids, weights; // [tokens, top_k]
  };
  Routing route(ValueId router_logits, int64_t top_k, bool renormalise);
  void moe(ValueId x, ValueId y, const Routing& routing, WeightId gate, WeightId up, WeightId down,
           Activation activation); // y += ...

  void output(ValueId value, std::string name);
  void begin_block(int32_t block) { block_ = block; } // what follows belongs to this block
  // What follows, until it is called with false, is skipped while there are no pictures.
  void begin_pictures_only(bool on) { pictures_only_ = on; }

  // --- what planner and engine read ---
  const std::vector<Buffer>& buffers() const { return buffers_; }
  const std::vector<Value>& values() const { return values_; }
  const std::vector<Weight>& weights() const { return weights_; }
  const std::vector<Op>& ops() const { return ops_; }
  const std::vector<Input>& inputs() const { return inputs_; }
  struct Output {
    ValueId value;
    std::string name;
  };
  const std::vector<Output>& outputs() const { return outputs_; }
  const Value& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  const Weight& weight(WeightId id) const { return weights_[static_cast<size_t>(id)]; }
  const std::map<std::string, Tensor>& declared_tensors() const { return *declared_; }

 private:
  Op& push(OpKind kind);
  ValueId add_value(Value value);

  std::vector<Buffer> buffers_;
  std::vector<Value> values_;
  std::vector<Weight> weights_;
  std::vector<Op> ops_;
  std::vector<Input> inputs_;
  std::vector<Output> outputs_;
  // Shared by copies of the graph, whose weights point into it.
  std::shared_ptr<std::map<std::string, Tensor>> declared_ =
      std::make_shared<std::map<std::string, Tensor>>();
  int32_t block_ = -1;
  bool pictures_only_ = false;
};

} // namespace pinhole
