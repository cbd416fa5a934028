#include "text/chat_template.h"

#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"

namespace pinhole {

namespace {

// Strings and members of the context: what a rendering may use grows with them.
uint64_t count_bytes(const Json& json, int depth = 0) {
  constexpr int kMaxDepth = 200; // deeper contexts are refused when they are read
  uint64_t bytes = 32;
  if (json.is_string())
    bytes += json.get_ref<const std::string&>().size();
  if (depth >= kMaxDepth)
    return bytes;
  for (const Json& child : json) {
    if (json.is_structured())
      bytes += count_bytes(child, depth + 1);
  }
  return bytes;
}

} // namespace

struct ChatTemplate::Impl {
  std::unique_ptr<jinja::Ast> ast;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, const std::string& where) {
  PINHOLE_TRY(auto ast, jinja::parse_template(source, where));
  auto impl = std::make_unique<Impl>();
  impl->ast = std::move(ast);
  return ChatTemplate(std::move(impl));
}

Result<std::string> ChatTemplate::render(const Json& context) const {
  const uint64_t input_bytes = count_bytes(context) + impl_->ast->source.size();
  jinja::Limits limits;
  limits.max_steps += 64 * input_bytes;
  limits.max_bytes += 16 * input_bytes;
  return jinja::Interpreter(*impl_->ast, limits).render(context);
}

} // namespace pinhole
