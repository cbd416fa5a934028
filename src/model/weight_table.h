// Finds a family's tensors in its files by one name, the Hugging Face module path, and checks their
// shapes. GGUF spellings stand beside it in the family's table and nowhere else.
#pragma once

#include "model/model.h"

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

// One row of a family's tensor table. "{}" stands for the layer number.
struct TensorName {
  std::string_view hf;   // "layers.{}.self_attn.q_proj"
  std::string_view gguf; // "blk.{}.attn_q"; empty: GGUF files do not have it
  Role role;
};

// A file that is a configuration alone has no tensors: what is asked for is declared, with the
// shape that the family expects and the configuration's dtype, as a published checkpoint would hold
// it.
//
// Errors are collected, so that a description reads as a list of calls; status() tells at the end.
class WeightTable {
 public:
  // `prefixes` are tried in turn before an HF name ("model.language_model.", "model.").
  WeightTable(const ModelFile& file, Graph& graph, std::span<const TensorName> names,
              std::initializer_list<std::string_view> prefixes);

  // A matrix [rows, cols]; further dimensions of the tensor (a convolution's) are flattened into
  // cols.
  WeightId matrix(std::string_view name, int64_t rows, int64_t cols, int layer = -1,
                  std::string_view suffix = ".weight");
  // Rows [row_begin, row_begin + rows) of a matrix that has all_rows of them.
  WeightId matrix_rows(std::string_view name, int64_t all_rows, int64_t cols, int64_t row_begin,
                       int64_t rows, int layer = -1, std::string_view suffix = ".weight");
  // A matrix [rows, cols] that is stored [cols, rows].
  WeightId matrix_transposed(std::string_view name, int64_t rows, int64_t cols, int layer = -1,
                             std::string_view suffix = ".weight");
  // A matrix [rows, cols] that is stored [rows / split, split * cols].
  WeightId matrix_split(std::string_view name, int64_t rows, int64_t cols, int64_t split);
  // A norm's or bias' [n].
  WeightId vector(std::string_view name, int64_t n, int layer = -1,
                  std::string_view suffix = ".weight");
  WeightId bias(std::string_view name, int64_t n, int layer = -1) {
    return vector(name, n, layer, ".bias");
  }
  WeightId bias_rows(std::string_view name, int64_t all, int64_t begin, int64_t n, int layer = -1);
  // Experts [experts, all_rows, cols], stored so or, on the hub, as [experts, cols, all_rows].
  WeightId experts(std::string_view name, int64_t experts, int64_t all_rows, int64_t cols,
                   int64_t row_begin, int64_t rows, int layer, std::string_view suffix);
  bool has(std::string_view name, int layer = -1, std::string_view suffix = ".weight") const;

  Status status() const; // all collected errors in one, or success

 private:
  const TensorName* row(std::string_view name) const;
  const Tensor* lookup(std::string_view name, int layer, std::string_view suffix) const;
  const Tensor* require(std::string_view name, int layer, std::string_view suffix,
                        std::vector<int64_t> declared_shape);
  std::string spelled(std::string_view name, int layer, std::string_view suffix) const;
  void complain(std::string message);
  WeightId wrong_shape(const Tensor& tensor, std::string_view expected);

  const ModelFile& file_;
  Graph& graph_;
  FormatId declared_format_ = FormatId::kBF16;
  std::span<const TensorName> names_;
  std::vector<std::string> prefixes_;
  std::vector<std::string> errors_;
  size_t num_errors_ = 0;
};

} // namespace pinhole
