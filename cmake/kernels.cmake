# One translation unit per instruction set, each with its own flags. Rule: such a unit includes only
# intrinsics, quant block headers and kernels/*.inl (a std container instantiated here could be the
# copy that the linker keeps for every CPU).
file(GLOB kernel_sources CONFIGURE_DEPENDS src/kernels/*.cc)
add_library(ph_kernels STATIC ${kernel_sources})
target_include_directories(ph_kernels PUBLIC ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(ph_kernels PUBLIC ph_quant)

set(flags_scalar -O2)
set(flags_avx2 -march=haswell)
set(flags_avx512 -march=icelake-server -mavx512bf16 -mprefer-vector-width=512)
set(flags_amx -march=icelake-server -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16 -mprefer-vector-width=512)
set(flags_neon -march=armv8.2-a+dotprod+fp16)
foreach(isa scalar avx2 avx512 amx neon)
  file(GLOB isa_sources CONFIGURE_DEPENDS src/kernels/isa_${isa}*.cc)
  if(isa_sources)
    # Debug presets still optimise kernels: a golden test should take seconds.
    set_source_files_properties(${isa_sources} PROPERTIES COMPILE_OPTIONS "${flags_${isa}};-O3")
  endif()
endforeach()
