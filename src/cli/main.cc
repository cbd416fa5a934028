// pinhole: vision-language models on the computer at hand. One file per subcommand.
#include "cli/common.h"
#include "cli/server_client.h"

#include <cstdlib>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace {

// Large blocks go back to the system as soon as they are freed: glibc would raise the size above
// which they do with every such block, and keep the holes.
void return_large_blocks() {
#if defined(__GLIBC__)
  constexpr int kLargeBytes = 256 << 10;
  mallopt(M_MMAP_THRESHOLD, kLargeBytes);
#endif
}

} // namespace

int main(int argc, char** argv) {
  using namespace pinhole::cli;
  return_large_blocks();
  CLI::App app{
      "pinhole answers questions about pictures with a local model, in memory planned ahead."};
  app.set_version_flag("--version", std::string("pinhole ") + PINHOLE_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Examples:\n"
      "  pinhole ask -i receipt.jpg \"What is the total on this receipt?\"\n"
      "  pinhole ask -m Qwen3-VL-2B-Q4_K_M.gguf -i page.png \"What is this page about?\"\n"
      "  pinhole plan Qwen3-VL-2B-Q4_K_M.gguf --ram 8G\n"
      "  pinhole serve -m Qwen3-VL-2B-Q4_K_M.gguf --ctx 8192\n"
      "  pinhole serve --config pinhole.toml, pinhole ps, pinhole stop MODEL\n"
      "  pinhole inspect Qwen3-VL-2B-Q4_K_M.gguf\n"
      "  pinhole verify ../shared/golden\n"
      "\n"
      "Environment: PINHOLE_ISA=scalar|avx2|avx512|amx|neon forces a kernel set,\n"
      "PINHOLE_THREADS the number of threads, PINHOLE_MODEL the default model,\n"
      "NO_COLOR turns colours off.\n"
      "Exit codes: 0 done, 1 negative outcome, 2 bad input, 3 does not fit, 130 interrupted.");
  int exit = kExitOk;
  add_ask(app, exit);
  add_inspect(app, exit);
  add_load(app, exit);
  add_perf(app, exit);
  add_plan(app, exit);
  add_ps(app, exit);
  add_serve(app, exit);
  add_stop(app, exit);
  add_tokenize(app, exit);
  add_verify(app, exit);
  catch_interrupts();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? kExitOk : kExitBadInput;
  }
  return exit;
}
