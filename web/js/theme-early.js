// Not a module: it runs before the page is drawn, so that chosen colours do not flash.
try {
  const theme = localStorage.getItem('puna.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // The browser forbids storage; the colours of the system it is.
}
