#include "model/weight_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace pinhole {

namespace {

constexpr size_t kMaxListedErrors = 8;

std::string with_layer(std::string_view pattern, int layer) {
  const size_t at = pattern.find("{}");
  if (at == std::string_view::npos)
    return std::string(pattern);
  return fmt::format("{}{}{}", pattern.substr(0, at), layer, pattern.substr(at + 2));
}

// "dtype", before transformers 5 "torch_dtype", of the configuration or its text part.
FormatId dtype_of(const Json& config) {
  const Json* text = json_find(config, "text_config");
  for (const Json* object : {&config, text}) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      const Json* dtype = object == nullptr ? nullptr : json_find(*object, key);
      if (dtype != nullptr && *dtype == "float32")
        return FormatId::kF32;
      if (dtype != nullptr && *dtype == "float16")
        return FormatId::kF16;
    }
  }
  return FormatId::kBF16;
}

// Bytes `offset` into a tensor's data; null where there is none.
const std::byte* data_at(const Tensor& tensor, int64_t offset) {
  return tensor.data == nullptr ? nullptr : tensor.data + offset;
}

} // namespace

WeightTable::WeightTable(const ModelFile& file, Graph& graph, std::span<const TensorName> names,
                         std::initializer_list<std::string_view> prefixes)
    : file_(file), graph_(graph), names_(names), prefixes_(prefixes.begin(), prefixes.end()) {
  if (file.config_only())
    declared_format_ = dtype_of(file.config());
}

const TensorName* WeightTable::row(std::string_view name) const {
  for (const TensorName& row : names_) {
    if (row.hf == name)
      return &row;
  }
  return nullptr;
}

std::string WeightTable::spelled(std::string_view name, int layer, std::string_view suffix) const {
  if (file_.container() == Container::kGguf) {
    const TensorName* names = row(name);
    return names == nullptr ? std::string() : with_layer(names->gguf, layer) + std::string(suffix);
  }
  return prefixes_.front() + with_layer(name, layer) + std::string(suffix);
}

const Tensor* WeightTable::lookup(std::string_view name, int layer, std::string_view suffix) const {
  if (file_.container() == Container::kGguf) {
    const TensorName* names = row(name);
    if (names == nullptr || names->gguf.empty())
      return nullptr;
    return file_.find(with_layer(names->gguf, layer) + std::string(suffix));
  }
  const std::string tail = with_layer(name, layer) + std::string(suffix);
  for (const std::string& prefix : prefixes_) {
    if (const Tensor* tensor = file_.find(prefix + tail))
      return tensor;
  }
  return nullptr;
}

const Tensor* WeightTable::require(std::string_view name, int layer, std::string_view suffix,
                                   std::vector<int64_t> declared_shape) {
  if (row(name) == nullptr) {
    complain(fmt::format("the family's tensor table has no row '{}'", name));
    return nullptr;
  }
  if (file_.config_only()) {
    Tensor tensor{spelled(name, layer, suffix), declared_format_, std::move(declared_shape)};
    tensor.bytes =
        static_cast<uint64_t>(row_bytes(declared_format_, tensor.cols()) * tensor.rows());
    return graph_.declare_tensor(std::move(tensor));
  }
  const Tensor* tensor = lookup(name, layer, suffix);
  if (tensor == nullptr) {
    complain(fmt::format("tensor '{}' is missing", spelled(name, layer, suffix)));
    return nullptr;
  }
  return tensor;
}

bool WeightTable::has(std::string_view name, int layer, std::string_view suffix) const {
  // A checkpoint has what a module of the hub's model holds: parameters of its own, or a weight.
  if (file_.config_only())
    return row(name) != nullptr && (suffix.empty() || suffix == ".weight");
  return lookup(name, layer, suffix) != nullptr;
}

void WeightTable::complain(std::string message) {
  ++num_errors_;
  if (errors_.size() < kMaxListedErrors)
    errors_.push_back(std::move(message));
}

WeightId WeightTable::wrong_shape(const Tensor& tensor, std::string_view expected) {
  complain(fmt::format("tensor '{}' has shape [{}], expected {}", tensor.name,
                       fmt::join(tensor.shape, ", "), expected));
  return kNoWeight;
}

WeightId WeightTable::matrix(std::string_view name, int64_t rows, int64_t cols, int layer,
                             std::string_view suffix) {
  return matrix_rows(name, rows, cols, 0, rows, layer, suffix);
}

WeightId WeightTable::matrix_rows(std::string_view name, int64_t all_rows, int64_t cols,
                                  int64_t row_begin, int64_t rows, int layer,
                                  std::string_view suffix) {
  const Tensor* tensor = require(name, layer, suffix, {all_rows, cols});
  if (tensor == nullptr)
    return kNoWeight;
  // A position table is a parameter [1, rows, cols] in some checkpoints.
  const bool in_a_batch = tensor->shape.size() == 3 && tensor->shape[0] == 1;
  if (tensor->shape.size() < 2 || tensor->shape[in_a_batch ? 1 : 0] != all_rows ||
      tensor->elements() != all_rows * cols) {
    return wrong_shape(*tensor, fmt::format("[{}, {}]", all_rows, cols));
  }
  if (format_info(tensor->format).block_elements > 1 && tensor->cols() != cols) {
    return wrong_shape(*tensor, fmt::format("[{}, {}] for a block format", all_rows, cols));
  }
  Weight weight;
  weight.tensor = tensor;
  weight.format = tensor->format;
  weight.rows = rows;
  weight.cols = cols;
  weight.row_stride_bytes = row_bytes(tensor->format, cols);
  weight.data = data_at(*tensor, row_begin * weight.row_stride_bytes);
  weight.role = row(name)->role;
  return graph_.add_weight(weight);
}

WeightId WeightTable::matrix_transposed(std::string_view name, int64_t rows, int64_t cols,
                                        int layer, std::string_view suffix) {
  const Tensor* tensor = require(name, layer, suffix, {cols, rows});
  if (tensor == nullptr)
    return kNoWeight;
  if (tensor->shape != std::vector<int64_t>{cols, rows})
    return wrong_shape(*tensor, fmt::format("[{}, {}]", cols, rows));
  if (format_info(tensor->format).block_elements != 1) {
    complain(fmt::format("tensor '{}' is {}, expected F32, F16 or BF16 for a matrix [in, out]",
                         tensor->name, format_info(tensor->format).name));
    return kNoWeight;
  }
  Weight weight;
  weight.tensor = tensor;
  weight.data = tensor->data;
  weight.format = tensor->format;
  weight.rows = rows;
  weight.cols = cols;
  weight.row_stride_bytes = row_bytes(tensor->format, rows);
  weight.transposed = true;
  weight.role = row(name)->role;
  return graph_.add_weight(weight);
}

WeightId WeightTable::matrix_split(std::string_view name, int64_t rows, int64_t cols,
                                   int64_t split) {
  const Tensor* tensor = require(name, -1, ".weight", {rows / split, split * cols});
  if (tensor == nullptr)
    return kNoWeight;
  if (tensor->shape != std::vector<int64_t>{rows / split, split * cols})
    return wrong_shape(*tensor, fmt::format("[{}, {}]", rows / split, split * cols));
  if (cols % format_info(tensor->format).block_elements != 0) {
    complain(fmt::format("tensor '{}' is {}, whose blocks do not divide {} elements", tensor->name,
                         format_info(tensor->format).name, cols));
    return kNoWeight;
  }
  Weight weight;
  weight.tensor = tensor;
  weight.data = tensor->data;
  weight.format = tensor->format;
  weight.rows = rows;
  weight.cols = cols;
  weight.row_stride_bytes = row_bytes(tensor->format, cols);
  weight.role = row(name)->role;
  return graph_.add_weight(weight);
}

WeightId WeightTable::vector(std::string_view name, int64_t n, int layer, std::string_view suffix) {
  const Tensor* tensor = require(name, layer, suffix, {n});
  if (tensor == nullptr)
    return kNoWeight;
  if (tensor->elements() != n || tensor->cols() != n) {
    return wrong_shape(*tensor, fmt::format("[{}]", n));
  }
  Weight weight;
  weight.tensor = tensor;
  weight.data = tensor->data;
  weight.format = tensor->format;
  weight.rows = 1;
  weight.cols = n;
  weight.row_stride_bytes = static_cast<int64_t>(tensor->bytes);
  weight.role = row(name)->role;
  return graph_.add_weight(weight);
}

WeightId WeightTable::bias_rows(std::string_view name, int64_t all, int64_t begin, int64_t n,
                                int layer) {
  const WeightId id = vector(name, all, layer, ".bias");
  if (id == kNoWeight)
    return id;
  Weight part = graph_.weight(id);
  if (format_info(part.format).block_elements != 1) {
    complain(fmt::format("tensor '{}' is {}, expected F32, F16 or BF16 for a bias",
                         part.tensor->name, format_info(part.format).name));
    return kNoWeight;
  }
  part.data = data_at(*part.tensor, row_bytes(part.format, begin));
  part.cols = n;
  part.row_stride_bytes = row_bytes(part.format, n);
  return graph_.add_weight(part);
}

WeightId WeightTable::experts(std::string_view name, int64_t num_experts, int64_t all_rows,
                              int64_t cols, int64_t row_begin, int64_t rows, int layer,
                              std::string_view suffix) {
  const Tensor* tensor = require(name, layer, suffix, {num_experts, cols, all_rows});
  if (tensor == nullptr)
    return kNoWeight;
  const std::vector<int64_t> straight = {num_experts, all_rows, cols};
  const std::vector<int64_t> transposed = {num_experts, cols, all_rows};
  Weight weight;
  weight.tensor = tensor;
  weight.format = tensor->format;
  weight.rows = rows;
  weight.cols = cols;
  weight.experts = num_experts;
  weight.expert_stride_bytes = static_cast<int64_t>(tensor->bytes) / num_experts;
  weight.role = row(name)->role;
  if (tensor->shape == straight) {
    weight.row_stride_bytes = row_bytes(tensor->format, cols);
    weight.data = data_at(*tensor, row_begin * weight.row_stride_bytes);
  } else if (tensor->shape == transposed && format_info(tensor->format).block_elements == 1) {
    weight.transposed = true;
    weight.row_stride_bytes = row_bytes(tensor->format, all_rows);
    weight.data = data_at(*tensor, row_bytes(tensor->format, row_begin));
  } else {
    return wrong_shape(*tensor, fmt::format("[{}, {}, {}] or [{}, {}, {}]", num_experts, all_rows,
                                            cols, num_experts, cols, all_rows));
  }
  return graph_.add_weight(weight);
}

Status WeightTable::status() const {
  if (errors_.empty())
    return {};
  std::string text = fmt::format("{}", fmt::join(errors_, "; "));
  if (num_errors_ > errors_.size()) {
    text += fmt::format("; and {} more", num_errors_ - errors_.size());
  }
  return fail(ErrorCode::kInvalidInput, std::move(text), file_.path());
}

} // namespace pinhole
