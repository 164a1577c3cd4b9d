// What the library was built with, for `equilidar_kernels.build_info`.
extern "C" const char* equilidar_kernels_build() {
#if defined(EQUILIDAR_WITH_CUDA)
  return "torch " EQUILIDAR_TORCH ", CPU and CUDA";
#else
  return "torch " EQUILIDAR_TORCH ", CPU";
#endif
}
