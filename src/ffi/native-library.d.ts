/** An embedded file: its path, inside the executable or on disk in development. */
declare module "*.so" {
  const path: string;
  export default path;
}
