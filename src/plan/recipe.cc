#include "plan/recipe.h"

#include "quant/formats.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>

namespace pinhole {

namespace {

struct Recipe {
  std::string_view name;
  FormatId base;      // of most matrices
  FormatId more_bits; // of v_proj and down_proj in some layers
  FormatId output;    // of the output matrix, and of embeddings that serve as it
  bool whole_model;   // vision too
};

constexpr Recipe kRecipes[] = {
    {"f32", FormatId::kF32, FormatId::kF32, FormatId::kF32, true},
    {"f16", FormatId::kF16, FormatId::kF16, FormatId::kF16, true},
    {"bf16", FormatId::kBF16, FormatId::kBF16, FormatId::kBF16, true},
    {"q8_0", FormatId::kQ8_0, FormatId::kQ8_0, FormatId::kQ8_0, false},
    {"q6_k", FormatId::kQ6_K, FormatId::kQ6_K, FormatId::kQ6_K, false},
    {"q5_k_m", FormatId::kQ5_K, FormatId::kQ6_K, FormatId::kQ6_K, false},
    {"q4_k_m", FormatId::kQ4_K, FormatId::kQ6_K, FormatId::kQ6_K, false},
    {"q4_0", FormatId::kQ4_0, FormatId::kQ4_0, FormatId::kQ6_K, false},
};

// As bitsandbytes loads a model: linear layers of text and vision, other than the output matrix, as
// nf4 with an f32 constant per 64 weights, which are as many bytes as IQ4_NL's; the rest at 16 bit.
constexpr std::string_view kNf4 = "nf4";
constexpr FormatId kNf4Format = FormatId::kIQ4_NL;

// What bitsandbytes quantises: nn.Linear. Embeddings and convolutions are other modules; experts,
// and what is stored [in, out], are bare parameters; lm_head is left alone.
bool is_linear(const Weight& weight) {
  const bool linear = weight.role == Role::kTextAttention || weight.role == Role::kTextMlp ||
                      weight.role == Role::kVisionAttention || weight.role == Role::kVisionMlp ||
                      weight.role == Role::kProjector;
  return linear && weight.rows > 1 && !weight.transposed;
}

// use_more_bits: the first and last eighth of the layers, and every third between.
bool has_more_bits(int64_t layer, int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

// A format whose blocks do not divide a row gives way to one whose blocks do.
FormatId fitting(FormatId format, int64_t cols) {
  const auto fits = [&](FormatId id) { return cols % format_info(id).block_elements == 0; };
  if (fits(format))
    return format;
  const FormatId instead = format == FormatId::kQ4_K   ? FormatId::kQ5_0
                           : format == FormatId::kQ5_K ? FormatId::kQ5_1
                                                       : FormatId::kQ8_0;
  return fits(instead) ? instead : FormatId::kF16;
}

bool is_text_matrix(Role role) {
  return role == Role::kTextAttention || role == Role::kTextMlp || role == Role::kTextExpert;
}

class Application {
 public:
  Application(const Recipe& recipe, Model& model) : recipe_(recipe), model_(model) {}

  void run() {
    Graph& text = model_.text;
    for (size_t i = 0; i < text.weights().size(); ++i)
      set(text, static_cast<WeightId>(i), plain(text.weights()[i]));
    for (const Op& op : text.ops()) {
      if (!recipe_.whole_model && has_more_bits(op.block, model_.cache.layers))
        more_bits(op);
      if (op.kind == OpKind::kMatmul && op.block < 0)
        set_output(op.parts.front().weight);
    }
    Graph& vision = model_.vision;
    for (size_t i = 0; i < vision.weights().size(); ++i) {
      const Weight& weight = vision.weights()[i];
      if (recipe_.whole_model)
        set(vision, static_cast<WeightId>(i), recipe_.base);
      else if (part_of(weight.role) == Part::kText) // keys and values of pictures
        set(vision, static_cast<WeightId>(i), plain(weight));
      else if (weight.data == nullptr)
        set(vision, static_cast<WeightId>(i), weight.rows > 1 ? FormatId::kF16 : FormatId::kF32);
    }
  }

 private:
  // What a weight of the text part gets when no rule names it.
  FormatId plain(const Weight& weight) const {
    if (recipe_.whole_model || is_text_matrix(weight.role) || weight.role == Role::kTextEmbedding ||
        weight.role == Role::kTextOutput) {
      return weight.rows == 1 && !recipe_.whole_model ? FormatId::kF32 : recipe_.base;
    }
    return FormatId::kF32; // norms, routers
  }

  void more_bits(const Op& op) {
    if (op.kind == OpKind::kMoe)
      set(model_.text, op.down, recipe_.more_bits);
    if (op.kind != OpKind::kMatmul)
      return;
    const Role role = model_.text.weight(op.parts.front().weight).role;
    if (role == Role::kTextAttention && op.parts.size() == 3) // q, k, v
      set(model_.text, op.parts[2].weight, recipe_.more_bits);
    if (role == Role::kTextMlp && op.parts.size() == 1) // gate and up share an op
      set(model_.text, op.parts[0].weight, recipe_.more_bits);
  }

  // The embedding, too, where it is the same tensor.
  void set_output(WeightId output) {
    const Tensor* tensor = model_.text.weight(output).tensor;
    for (size_t i = 0; i < model_.text.weights().size(); ++i) {
      if (model_.text.weights()[i].tensor == tensor)
        set(model_.text, static_cast<WeightId>(i), recipe_.output);
    }
  }

  static void set(Graph& graph, WeightId id, FormatId format) {
    graph.set_format(id, fitting(format, graph.weight(id).cols));
  }

  const Recipe& recipe_;
  Model& model_;
};

void apply_nf4(Model& model) {
  for (Graph* graph : {&model.text, &model.vision}) {
    for (size_t i = 0; i < graph->weights().size(); ++i) {
      const Weight& weight = graph->weights()[i];
      graph->set_format(static_cast<WeightId>(i),
                        is_linear(weight) ? fitting(kNf4Format, weight.cols) : FormatId::kBF16);
    }
  }
}

} // namespace

std::vector<std::string_view> recipe_names() {
  std::vector<std::string_view> names;
  for (const Recipe& recipe : kRecipes)
    names.push_back(recipe.name);
  names.push_back(kNf4);
  return names;
}

Status apply_recipe(std::string_view name, Model& model) {
  const auto* recipe = std::find_if(std::begin(kRecipes), std::end(kRecipes),
                                    [&](const Recipe& one) { return one.name == name; });
  const bool known = recipe != std::end(kRecipes);
  if (known)
    Application(*recipe, model).run();
  if (name == kNf4)
    apply_nf4(model);
  if (known || name == kNf4) {
    model.weight_bytes = 0;
    for (const RoleBytes& role : bytes_by_role(model))
      model.weight_bytes += static_cast<uint64_t>(role.bytes);
    return {};
  }
  return fail(ErrorCode::kInvalidInput,
              fmt::format("'{}' is not one of {}", name, fmt::join(recipe_names(), ", ")),
              "--weights");
}

namespace {

std::vector<RoleBytes> sum_by_role(const Model& model, FunctionRef<bool(const Tensor*)> counts) {
  std::map<const Tensor*, const Weight*> tensors;
  for (const Graph* graph : {&model.text, &model.vision}) {
    for (const Weight& weight : graph->weights()) {
      if (counts(weight.tensor))
        tensors.emplace(weight.tensor, &weight);
    }
  }
  std::map<Role, RoleBytes> roles;
  for (const auto& [tensor, weight] : tensors) {
    RoleBytes& sum = roles.emplace(weight->role, RoleBytes{weight->role}).first->second;
    const int64_t elements = tensor->elements();
    // A bias may be read in parts; its format has blocks of one element then.
    const int64_t cols = weight->rows == 1 ? elements : weight->cols;
    ++sum.tensors;
    sum.elements += elements;
    sum.bytes += elements / cols * row_bytes(weight->format, cols);
  }
  std::vector<RoleBytes> out;
  for (const auto& [role, sum] : roles)
    out.push_back(sum);
  return out;
}

} // namespace

std::vector<RoleBytes> bytes_by_role(const Model& model) {
  return sum_by_role(model, [](const Tensor*) { return true; });
}

int64_t bytes_of_tensors(const Model& model, FunctionRef<bool(const Tensor*)> counts) {
  int64_t bytes = 0;
  for (const RoleBytes& role : sum_by_role(model, counts))
    bytes += role.bytes;
  return bytes;
}

TransformersFootprint transformers_footprint(const Model& model) {
  TransformersFootprint out;
  std::map<const Tensor*, const Weight*> tensors;
  for (const Graph* graph : {&model.text, &model.vision}) {
    for (const Weight& weight : graph->weights())
      tensors.emplace(weight.tensor, &weight);
  }
  for (const auto& [tensor, weight] : tensors) {
    out.parameters += tensor->elements();
    if (is_linear(*weight))
      out.linear += tensor->elements();
  }
  return out;
}

} // namespace pinhole
