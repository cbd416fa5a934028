// Memory that the allocator has handed out.
#pragma once

#include <cstdint>

namespace pinhole {

// Bytes that malloc and new have handed out at this moment, with what the allocator adds to each;
// 0 where it does not tell (glibc's does, sanitizers' do not).
int64_t allocated_bytes();

// Large blocks go back to the system as soon as they are freed: glibc would raise the size above
// which they do with every such block, and keep the holes. For a program's start.
void return_large_blocks();

} // namespace pinhole
