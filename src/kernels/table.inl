// The table of one instruction set, included last: every function of rows, decode, attention and
// matmul.
#include "kernels/table.h"

namespace pinhole::kernels {
namespace {

constexpr Table kTable = {PINHOLE_KERNEL_NAME,
                          pick_matmul,
                          pick_attention,
                          decode,
                          rms_norm,
                          layer_norm,
                          add,
                          mul_add,
                          activate,
                          gated,
                          rope,
                          store_kv,
                          softmax,
                          argmax,
                          kPeaks,
                          sizeof kPeaks / sizeof kPeaks[0],
                          read_memory};

} // namespace
} // namespace pinhole::kernels
